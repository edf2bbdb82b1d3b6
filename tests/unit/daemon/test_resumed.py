"""What `resume` says of a GPU: what it was before, and what it is now."""

import pytest

from topod.daemon.views import resumed_text
from topod.lifecycle.states import Mark, MarkKind
from topod.model.topology import Gpu

GPU = Gpu(index=0, uuid="GPU-a")
OTHER = "GPU-b"
DRAINED = Mark(kind=MarkKind.DRAINED, reason="fan", since=0.0)
IN_USE = Mark(kind=MarkKind.QUARANTINED, reason="pid 7", since=0.0)
REMAP = Mark(kind=MarkKind.UNHEALTHY, reason="a row", since=0.0, causes=("remap",))
ACCEPTED = Mark(kind=MarkKind.UNHEALTHY, reason="a row", since=0.0, causes=("remap",), accepted=True)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ((), (), "GPU0 was not kept back"),
        ((DRAINED,), (), "GPU0 is handed out again"),
        (
            (IN_USE,),
            (),
            "GPU0 is handed out again; where it is still in use, the next look keeps it back again",
        ),
        ((REMAP,), (ACCEPTED,), "GPU0 is handed out again, in spite of this: a row"),
        ((REMAP,), (REMAP,), "GPU0 is still kept back, which a resume cannot change: unhealthy: a row"),
    ],
)
def test_a_resume_says_what_came_of_it(before: tuple[Mark, ...], after: tuple[Mark, ...], said: str) -> None:
    assert resumed_text(GPU, {GPU.uuid: before, OTHER: (DRAINED,)}, {GPU.uuid: after}) == said

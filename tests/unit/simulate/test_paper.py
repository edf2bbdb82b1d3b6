"""The paper's algorithms: as published and on bit masks they choose the same; topod is never dearer."""

import pytest

from bench.evidence.paper import MIXES, Mix, check, run
from topod.simulate.policies.paper import Reprieve


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: mix.name)
def test_in_every_state_topod_is_no_dearer_and_the_published_search_chooses_as_ours(mix: Mix) -> None:
    row = run(mix, Reprieve(), hosts=4, preemptions=40, published=True)
    check(row)
    assert len(row.cases) == 40
    for case in row.cases:
        for name in ("imp", "exhaustive"):
            ours, theirs = case[name], case[f"{name}, as published"]
            assert (ours.levels, ours.idled, ours.satisfied) == (
                theirs.levels,
                theirs.idled,
                theirs.satisfied,
            )
            assert ours.found == theirs.found

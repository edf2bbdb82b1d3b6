"""One fact from several sources: the first that knows it wins, the others that differ are kept in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from topod.model.topology import Fact

NVML: Final = "nvml"
SYSFS: Final = "sysfs"
MATRIX: Final = "nvidia-smi topo -m"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen(Generic[T]):
    """A value and where it came from. `disagrees` holds (source, what it said) of the overruled ones."""

    value: T
    source: str
    disagrees: tuple[tuple[str, str], ...] = ()

    def fact(self, subject: str) -> Fact:
        """Return this as a `Fact` about `subject`."""
        said = tuple(f"{source} said {text}" for source, text in self.disagrees)
        return Fact(subject=subject, source=self.source, disagrees=said)


def choose(
    candidates: Sequence[tuple[str, T | None]],
    *,
    show: Callable[[T], str] = str,
    differ: Callable[[T, T], bool] = lambda chosen, other: chosen != other,
) -> Chosen[T] | None:
    """Return the first candidate (source, value) that has a value, None where none has."""
    known = [(source, value) for source, value in candidates if value is not None]
    if not known:
        return None
    source, chosen = known[0]
    # What is inferred is not said by anybody, so it cannot disagree.
    others = [(other, value) for other, value in known[1:] if not other.startswith("inferred")]
    said = tuple((other, show(value)) for other, value in others if differ(chosen, value))
    return Chosen(value=chosen, source=source, disagrees=said)

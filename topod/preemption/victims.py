"""Who may be a victim, what each would cost, and what is free: the state of a host as the search sees it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from topod.errors import DataError
from topod.flextopo.tables import TopologyTables
from topod.model.occupancy import Holder, Occupancy


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An eligible victim."""

    index: int
    """Its place in `Occupancy.holders`."""
    holder: Holder
    gpus: int
    cpus: int
    """CPUs that become free with it: those that no block keeps."""
    weight: int
    """What it adds to cost key 1 as one number; see `_weights`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is free, what can be freed and at what price."""

    candidates: tuple[Candidate, ...]
    """Eligible victims in the order of the occupancy."""
    free_gpus: int
    """GPUs that nobody holds and nothing blocks."""
    usable_gpus: int
    """GPUs that are free or can be freed."""
    blocked_gpus: int
    pool: int
    """Free CPUs."""
    spoils: int = 0
    """Of the GPUs that nobody holds those that count as stranded if nobody takes them."""
    limits: tuple[tuple[int, int], ...] = ()
    """The disruption budgets that could be broken: who counts (by position, a mask), how many may stop."""


def read_state(tables: TopologyTables, occupancy: Occupancy, priority: int) -> State:
    """Return the state that a request of `priority` meets. Raises `DataError` if two jobs hold one thing."""
    blocked_gpus = blocked_cpus = 0
    for block in occupancy.blocks:
        blocked_gpus |= block.gpus
        blocked_cpus |= block.cpus.mask
    held_gpus = held_cpus = fixed = 0
    eligible: list[tuple[int, Holder]] = []
    for index, holder in enumerate(occupancy.holders):
        gpus, cpus = holder.gpus, holder.cpus.mask
        if held_gpus & gpus or held_cpus & cpus:
            raise DataError(_shared(occupancy, index))
        held_gpus |= gpus
        held_cpus |= cpus
        if holder.evictable and holder.priority < priority:
            eligible.append((index, holder))
        else:
            fixed |= gpus
    allowed = tables.cpus & ~blocked_cpus
    weights = _weights([holder for _, holder in eligible])
    return State(
        candidates=tuple(
            Candidate(
                index=index,
                holder=holder,
                gpus=holder.gpus,
                cpus=holder.cpus.mask & allowed,
                weight=weights[holder.priority] * holder.stops,
            )
            for index, holder in eligible
        ),
        free_gpus=tables.all_gpus & ~held_gpus & ~blocked_gpus,
        usable_gpus=tables.all_gpus & ~fixed & ~blocked_gpus,
        blocked_gpus=blocked_gpus,
        pool=allowed & ~held_cpus,
        spoils=occupancy.spoils & tables.all_gpus & ~held_gpus,
        limits=tuple(_limits(occupancy, [holder for _, holder in eligible])) if occupancy.budgets else (),
    )


def _limits(occupancy: Occupancy, eligible: list[Holder]) -> Iterator[tuple[int, int]]:
    for budget in occupancy.budgets:
        members = sum(1 << i for i, holder in enumerate(eligible) if budget.name in holder.budgets)
        if members.bit_count() > budget.stops:
            yield members, budget.stops


def _weights(eligible: list[Holder]) -> dict[int, int]:
    """Return a weight per priority such that sums of weights compare as cost key 1 does.

    One container of a level weighs more than all that stop with holders of the levels below it together.
    """
    weights: dict[int, int] = {}
    weight = 1
    counts: Counter[int] = Counter()
    for holder in eligible:
        counts[holder.priority] += holder.stops
    for priority, count in sorted(counts.items()):
        weights[priority] = weight
        weight *= count + 1
    return weights


def _shared(occupancy: Occupancy, index: int) -> str:
    """Return the sentence that says what the holder at `index` shares with an earlier one."""
    late = occupancy.holders[index]
    for early in occupancy.holders[:index]:
        if gpus := early.gpus & late.gpus:
            return f"jobs {early.job} and {late.job} both hold GPU {(gpus & -gpus).bit_length() - 1}"
        if cpus := early.cpus & late.cpus:
            return f"jobs {early.job} and {late.job} both hold CPUs {cpus}"
    raise AssertionError("no earlier holder shares anything")

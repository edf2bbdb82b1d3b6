"""A host as it will be once it has all that it was promised: so that nothing there is given away twice.

From the decision until the report that tells of it, an assignment counts as the host itself counts a job
whose container is being made: its GPUs and CPUs are its own, its victims have lost those.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.fleet.states import Member
from topod.model.occupancy import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One assignment that its host has not confirmed."""

    name: str
    """Of the job, unlike any of the host's own."""
    ident: str
    """How people name it."""
    priority: int
    """The one that protects it."""
    member: Member


def with_promises(
    snapshot: HostSnapshot,
    promises: Iterable[Promise],
    *,
    labels: Mapping[str, str],
    closed: str | None,
) -> HostSnapshot:
    """Return what the decision is to see of a host.

    Where others took meanwhile what was promised, the host will refuse; until then it is nobody else's.
    """
    holders, budgets = list(snapshot.holders), list(snapshot.budgets)
    for promise in promises:
        place = promise.member.place
        gpus, cpus = gpu_mask(place.gpus), promise.member.cpus
        for at, held in enumerate(holders):
            left = replace(held, gpus=held.gpus & ~gpus, cpus=held.cpus - cpus)
            if held.job in place.victims:
                budgets = [_spend(budget) if budget.name in held.budgets else budget for budget in budgets]
                left = replace(left, budgets=())
            holders[at] = left
        holders.append(
            HeldBy(
                job=promise.name,
                ident=promise.ident,
                priority=promise.priority,
                gpus=gpus,
                cpus=cpus,
                evictable_from=None,
                protection="being placed just now",
            )
        )
    return replace(
        snapshot,
        holders=tuple(holders),
        budgets=tuple(budgets),
        closed=snapshot.closed if closed is None else closed,
        labels=labels,
    )


def _spend(budget: Budget) -> Budget:
    return replace(budget, stops=max(0, budget.stops - 1))


def gpu_mask(indices: Iterable[int]) -> int:
    """Return the bit mask of GPU indices."""
    mask = 0
    for index in indices:
        mask |= 1 << index
    return mask


def free_of(snapshot: HostSnapshot, all_gpus: int) -> int:
    """Return the mask of the GPUs that nobody holds and nothing blocks."""
    for held in snapshot.holders:
        all_gpus &= ~held.gpus
    for block in snapshot.blocks:
        all_gpus &= ~block.gpus
    return all_gpus

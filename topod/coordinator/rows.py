"""From the state of a fleet to what who watches it is told of each host. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from topod.coordinator.views import standing
from topod.fleet.board import unconfirmed
from topod.fleet.hosts import HostSnapshot
from topod.fleet.promised import free_of, with_promises
from topod.fleet.states import FleetJob, FleetJobId, HostRecord, Target
from topod.fleet.view import HostView
from topod.flextopo.free import free_groups
from topod.flextopo.places import places
from topod.flextopo.tables import TopologyTables
from topod.model.occupancy import Block
from topod.model.rules import Rules
from topod.protocol.views import BlockedGpus, FleetRow, FreeGroup, GpuPlace, HeldGpus, KindView

_STATES: Final = frozenset({"unhealthy", "quarantined", "foreign", "drained"})


def row_of(
    record: HostRecord,
    seen: HostView | None,
    jobs: Sequence[FleetJob],
    kept: Iterable[tuple[FleetJob, Target]],
    rules: Rules,
    *,
    emulated: bool,
) -> FleetRow:
    """Return one host in brief. `jobs` are the fleet's on it; `kept`: for whom what is kept there."""
    state, reason = standing(record, seen, 0.0)
    silent = seen is not None and seen.silent
    common = {
        "name": record.name,
        "state": state,
        "reason": "" if silent else reason,
        "kind": record.hardware,
        "jobs": len(jobs),
        "labels": record.all_labels,
        "emulated": emulated,
    }
    if seen is None or seen.snapshot is None:
        return FleetRow(**common, gpus=None if seen is None else seen.tables.count)  # type: ignore[arg-type]  # by name
    now = _with_all(seen.snapshot, record.name, jobs, kept, rules)
    free = free_of(now, seen.tables.all_gpus)
    return FleetRow(
        **common,  # type: ignore[arg-type]  # by name
        gpus=seen.tables.count,
        held=_held(now, seen, jobs),
        blocked=[_blocked(block) for block in now.blocks if block.gpus],
        free=list(_groups(seen.tables, free)),
        waiting=sum(report.state == "pending" for report in (seen.jobs or {}).values()),
        heard_at=seen.heard_at if silent else None,
        troubles=list(seen.troubles),
    )


def kind_of(name: str, tables: TopologyTables) -> KindView:
    """Return what is told once of a kind of hardware."""
    return KindView(name=name, gpus=[GpuPlace(*place) for place in places(tables.topology)])


def _with_all(
    snapshot: HostSnapshot,
    host: str,
    jobs: Sequence[FleetJob],
    kept: Iterable[tuple[FleetJob, Target]],
    rules: Rules,
) -> HostSnapshot:
    """Return the host with what it was promised and what is kept for jobs that wait."""
    blocks = tuple(Block(reason=f"reserved: kept for {job.label}", gpus=target.gpus) for job, target in kept)
    promises = unconfirmed(jobs, host, rules)
    if promises:
        snapshot = with_promises(snapshot, promises, labels={}, closed=None)
    return replace(snapshot, blocks=(*snapshot.blocks, *blocks)) if blocks else snapshot


def _held(snapshot: HostSnapshot, seen: HostView, jobs: Sequence[FleetJob]) -> list[HeldGpus]:
    names: dict[str, FleetJob] = {f"fleet:{job.id}": job for job in jobs}
    by_id: dict[FleetJobId, FleetJob] = {job.id: job for job in jobs}
    for report in (seen.jobs or {}).values():
        job = by_id.get(FleetJobId(report.job))
        if job is not None and report.local:
            names[str(report.local)] = job
    found = []
    for one in snapshot.holders:
        if not one.gpus:
            continue
        job = names.get(one.job)
        if job is None:
            ident = f"{one.ident or one.job} of {snapshot.host}"
            found.append(HeldGpus(ident, one.priority, one.gpus))
        else:
            state = "reserved" if one.job.startswith("fleet:") else "held"
            found.append(HeldGpus(job.ident, one.priority, one.gpus, int(job.id), state))
    return found


def _blocked(block: Block) -> BlockedGpus:
    head, _, rest = block.reason.partition(":")
    if head in _STATES or head == "reserved":
        return BlockedGpus(head, block.gpus, rest.strip())
    return BlockedGpus("blocked", block.gpus, block.reason)


@lru_cache(maxsize=1 << 14)
def _groups(tables: TopologyTables, free: int) -> tuple[FreeGroup, ...]:
    return tuple(FreeGroup(one.level.value, one.size, one.number) for one in free_groups(tables, free))

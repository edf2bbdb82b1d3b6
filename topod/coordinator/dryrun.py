"""What the fleet would give a job now, were it the only one that waits."""

from collections.abc import Mapping, Sequence
from typing import Any

from topod.fleet.board import Board, ask, ask_all, shortage
from topod.fleet.hosts import occupancy_at
from topod.fleet.never import never
from topod.fleet.pick.cost import Chosen, fleet_key, why_better
from topod.fleet.picking import Choice
from topod.fleet.states import FleetJob, FleetRequest, FleetState
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.explaining import plan_data
from topod.model.plan import Refusal
from topod.model.request import ResourceRequest
from topod.protocol.replies import Planned


def dry_run(
    board: Board,
    state: FleetState,
    tables: Mapping[str, TopologyTables],
    asked: FleetRequest,
    now: float,
) -> Planned:
    """Return the hosts and plans of least cost; the queue before the job is not looked at.

    `tables` are those of the hosts that can be reached. The plan is that of the first host, with all of them
    under `hosts`; the victims are named as their hosts name them. `next_host` has the best plan on any other
    host, with `decided_by`, and its victims as the fleet names them; for a job over several hosts it could
    take the place of one of them. `looked` tells of how many hosts these are the best.
    """
    impossible = never(asked, state.hosts, tables)
    if impossible is not None:
        return Planned(feasible=False, never=True, reason=f"{impossible} (hosts may join)")
    if not board.known():
        why = "no host can be reached now" if state.hosts else "no host has joined the fleet"
        return Planned(feasible=False, reason=why)
    job = FleetJob(id=state.next_job, request=asked, submitted_at=now)
    chosen, refusal = ask_all(board, job, now, may_evict=True, exclude=frozenset())
    if refusal is not None:
        reason = shortage(chosen, asked.hosts, refusal)
        return Planned(feasible=False, reason=reason, details=list(refusal.details))
    plans = [{"host": choice.host, **_data(board, tables, asked, choice, now)} for choice in chosen]
    looked = board.picker.room(asked.spec.request, selector=asked.selector)
    more = {
        "next_host": _next_host(board, job, chosen, now),
        "looked": {"hosts": looked.looked, "room": looked.room, "fleet": len(state.hosts)},
    }
    return Planned(feasible=True, plan={**plans[0], **more, "hosts": plans})


def _next_host(board: Board, job: FleetJob, best: Sequence[Choice], now: float) -> dict[str, Any] | None:
    """Return the best plan on any other host, and why it is not one of the best; None: no other can."""
    request = job.spec.request
    other = ask(board, job, now, may_evict=True, exclude={one.host for one in best})
    found = [one for one in best if isinstance(one, Chosen)]
    if isinstance(other, Refusal) or not isinstance(other, Chosen) or not found:
        return None
    last = max(found, key=lambda one: fleet_key(one, request))
    if fleet_key(other, request) < fleet_key(last, request) or not board.keeps_budgets(
        [other, *(one for one in best if one is not last)]
    ):
        return None  # what is best together need not be best one by one
    return {
        "host": other.host,
        "gpus": list(other.plan.gpus),
        "victims": [board.called(other.host, victim) for victim in other.plan.victims],
        "in_place_of": last.host,
        "decided_by": why_better(last, other, request),
    }


def _data(
    board: Board, tables: Mapping[str, TopologyTables], asked: FleetRequest, choice: Choice, now: float
) -> dict[str, Any]:
    snapshot = board.host(choice.host)
    assert snapshot is not None
    request: ResourceRequest = asked.spec.request
    data = plan_data(tables[choice.host], occupancy_at(snapshot, now), request, choice.plan)
    if asked.hosts > 1:  # the next best plan on one of them says nothing of the next best choice
        data.pop("ruled_out", None)
        data["alternative"] = None
    return data

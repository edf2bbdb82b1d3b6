"""What a host must be told: all that it has not confirmed, worked out from state and view alone.

So nothing is lost by a crash between a decision and its message, and what is said twice is said alike. The
state must be durable before any of it is sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from topod.fleet.jobtable import jobs_on
from topod.fleet.states import ENDED, OVER, FleetJob, FleetJobId, FleetJobState, FleetState, Member
from topod.fleet.view import FleetView
from topod.model.assignment import Assign, FleetJobReport, FleetTag, Revoke, Settled


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOrders:
    """The contents of `Orders` for one host; the shell adds session, epoch, number, echo and lease."""

    assign: tuple[Assign, ...] = ()
    revoke: tuple[Revoke, ...] = ()
    settled: tuple[Settled, ...] = ()
    priorities: Mapping[int, int] = field(default_factory=dict)


NO_ORDERS = HostOrders()


def orders_for(state: FleetState, view: FleetView, host: str) -> HostOrders:
    """Return what a host has not confirmed. Nothing before its first report: only that tells what it has."""
    seen = view.hosts.get(host)
    if seen is None or seen.jobs is None:
        return NO_ORDERS
    assign: list[Assign] = []
    revoke: list[Revoke] = []
    priorities: dict[int, int] = {}
    mine: set[tuple[int, int]] = set()
    for job in jobs_on(state.jobs, host):
        member = job.on(host)
        if member is None or member.over or job.state in ENDED:
            continue
        mine.add((job.id, job.fence))
        order = _order(job, member, seen.jobs.get((job.id, job.fence)))
        if isinstance(order, Assign):
            assign.append(order)
        elif order is not None:
            revoke.append(order)
        if job.reprioritised:
            priorities[int(job.id)] = job.priority
    others = [told for key, told in sorted(seen.jobs.items()) if key not in mine]
    settled = tuple(Settled(job=told.job, fence=told.fence) for told in others if told.state in OVER)
    # What was never given out here was submitted to another fleet, or before the database was lost.
    strays = [told for told in others if told.state not in OVER and told.job < state.next_job]
    revoke += [_stop_stray(state, told) for told in strays]
    return HostOrders(assign=tuple(assign), revoke=tuple(revoke), settled=settled, priorities=priorities)


def _order(job: FleetJob, member: Member, told: FleetJobReport | None) -> Assign | Revoke | None:
    """Return what one member's host must be told; None: it knows."""
    if job.ending is not None:
        requeue = job.ending.state is FleetJobState.PENDING
        return Revoke(job=job.id, fence=job.fence, requeue=requeue, reason=job.ending.reason)
    if told is None and member.report is not None:
        # It had it once. Should this be an old report after all, the job is only stopped in vain.
        reason = f"{member.host} knows nothing of it any more"
        return Revoke(job=job.id, fence=job.fence, requeue=True, reason=reason)
    return _assign(job, member) if told is None or (job.go and told.ready) else None


def environment(job: FleetJob, rank: int) -> dict[str, str]:
    """Return what a member's command learns of the fleet: docs/reference/job-file.md."""
    hosts = [member.host for member in job.members]
    addresses = [member.address or member.host for member in job.members]
    meet = {}
    if job.rendezvous:
        meet = {
            "TOPOD_RENDEZVOUS": job.rendezvous,
            "MASTER_ADDR": addresses[0],
            "MASTER_PORT": str(job.port),
        }
    return {
        "TOPOD_FLEET_JOB": str(job.id),
        "TOPOD_HOST_COUNT": str(len(hosts)),
        "TOPOD_HOST_RANK": str(rank),
        "TOPOD_HOSTS": ",".join(hosts),
        "TOPOD_FIRST_HOST": hosts[0],
        "TOPOD_HOST_ADDRESSES": ",".join(addresses),
        **meet,
    }


def _assign(job: FleetJob, member: Member) -> Assign:
    tag = FleetTag(
        job=job.id,
        fence=job.fence,
        rank=member.rank,
        size=len(job.members),
        go=job.go,
        env=environment(job, member.rank),
        on_host_lost=job.spec.on_host_lost,
        preemptions=job.preemptions,
        failures=job.failures if len(job.members) == 1 else 0,
        guard_priority=None if job.guard is None else job.guard.priority,
        guard_seconds=0.0 if job.guard is None else job.guard.seconds,
        budgets=job.budgets,
    )
    return Assign(tag=tag, spec=job.spec, place=member.place)


def _stop_stray(state: FleetState, told: FleetJobReport) -> Revoke:
    here = FleetJobId(told.job) in state.jobs
    reason = "it was given to another host" if here else "it has ended"
    return Revoke(job=told.job, fence=told.fence, requeue=here, reason=reason)

"""What is new in a coordinator's orders, as events; and what of it this host cannot run at all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from topod.adapters.secret_files import checked_secrets
from topod.errors import TopodError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle import events as ev
from topod.lifecycle.states import ENDED, HostState, Job
from topod.model.assignment import Assign, FleetTag, Revoke
from topod.model.rules import NO_RULES, Rules
from topod.protocol.link import Orders
from topod.shell.checks import check_spec
from topod.shell.vetting import Vet, allow


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Judges assignments as `submit` judges the jobs of this host. May block on the file system."""

    tables: TopologyTables
    runtime: str
    rules: Callable[[], Rules] = lambda: NO_RULES
    """Those in force."""
    vet: Vet = allow

    def event(self, order: Assign) -> ev.Assigned:
        """Return an assignment as the event of it, refused where this host can never run it so."""
        assigned = ev.Assigned(tag=order.tag, spec=order.spec, place=order.place)
        try:
            check_spec(order.spec, self.tables, self.rules(), self.runtime)
            if order.spec.secrets:
                checked_secrets(order.spec)
            user = self.vet(order.spec).container_user
        except TopodError as refused:
            return replace(assigned, refusal=refused.message)
        return replace(assigned, spec=replace(order.spec, container_user=user))


def to_judge(orders: Orders, state: HostState) -> tuple[Assign, ...]:
    """Return the assignments that this host does not know, in the order in which they were made."""
    known = _known(state)
    new = [order for order in orders.assign if (order.tag.job, order.tag.fence) not in known]
    return tuple(sorted(new, key=lambda order: order.tag.fence))


def the_rest(orders: Orders, state: HostState, *, whole: bool) -> Iterator[ev.Event]:
    """Yield what else is to be done, after the assignments of the same orders.

    `whole`: those were taken. Else nothing is settled either, so that none of them will look old.
    """
    known = _known(state)
    for order in orders.assign:
        job = known.get((order.tag.job, order.tag.fence))
        if (
            order.tag.go
            and job is not None
            and job.tag is not None
            and not job.tag.go
            and job.state not in ENDED
        ):
            yield ev.Go(job=order.tag.job, fence=order.tag.fence)
    for revoke in orders.revoke:
        if not _is_done(revoke, known):
            yield ev.Revoked(job=revoke.job, fence=revoke.fence, requeue=revoke.requeue, reason=revoke.reason)
    for settled in orders.settled if whole else ():
        job = known.get((settled.job, settled.fence))
        if job is not None and job.state in ENDED:
            yield ev.Settled(job=settled.job, fence=settled.fence)
    for job in known.values():
        priority = orders.priorities.get(job.tag.job) if job.tag is not None else None
        if priority is not None and priority != job.priority and job.state not in ENDED:
            yield ev.PriorityChanged(job=job.id, priority=priority, by="the coordinator")


def _known(state: HostState) -> dict[tuple[int, int], Job]:
    return {(tag.job, tag.fence): job for job, tag in _tagged(state)}


def _tagged(state: HostState) -> Iterator[tuple[Job, FleetTag]]:
    for _, job in sorted(state.jobs.items()):
        if job.tag is not None:
            yield job, job.tag


def _is_done(revoke: Revoke, known: dict[tuple[int, int], Job]) -> bool:
    older = [job for (of, fence), job in known.items() if of == revoke.job and fence <= revoke.fence]
    return (revoke.job, revoke.fence) in known and all(job.state in ENDED for job in older)

"""What the coordinator of a fleet orders: run this, stop that, go; and what the end of a lease means.

A job of the fleet is a job of this host with a tag. It never waits here for room: where another would go
back into the queue, it ends as `returned` and the coordinator places it anew. Only an image that is being
pulled, a back-off, and a checkpoint that only this host can restore keep it here.

At most once: a pair (fleet job, fence) is taken by a host at most once, whatever is lost, repeated or late.
What was taken is kept in the state, ended or not, until the coordinator has settled it; `settled_fence` is
the highest fence of all that were. An assignment that comes is one of those kept, and known; or its fence is
not above `settled_fence`, and it is refused; or it is above all that were ever forgotten, hence none of them,
and new. None is refused so that is still to be carried out: fences rise in the order in which the coordinator
assigns, and each message holds all that is not confirmed yet and is taken in whole, assignments first. Old
orders are answered, not passed over: whoever gave them has lost its memory, and would say them for ever.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from topod.lifecycle import events as ev
from topod.lifecycle.draft import Draft
from topod.lifecycle.ending import give_back
from topod.lifecycle.starting import go_on
from topod.lifecycle.states import ENDED, Assignment, Job, StopCause
from topod.lifecycle.stopping import begin_stop
from topod.model.assignment import FleetTag, Place
from topod.model.job import JobId, JobSpec, OnHostLost

OWN_VARIABLES = "TOPOD_"
"""What a coordinator says in variables that begin so is a fact; anything else the job may say otherwise."""


def concerning_fleet(draft: Draft, event: ev.FleetEvent) -> None:
    """Take in what the coordinator orders, or that it has not been heard for too long."""
    match event:
        case ev.Assigned():
            _assigned(draft, event)
        case ev.Revoked():
            _revoked(draft, event)
        case ev.Go():
            for job, tag in _of(draft, event.job):
                if tag.fence == event.fence:
                    _go(draft, job)
        case ev.Settled():
            _settled(draft, event)
        case ev.LeaseEnded():
            _lease_ended(draft)
        case _:
            assert_never(event)


def fleet_spec(spec: JobSpec, tag: FleetTag) -> JobSpec:
    """Return what a job of the fleet runs here, with its place in the fleet in its environment.

    What the coordinator has waited for it does not wait for again.
    """
    facts = {name: value for name, value in tag.env.items() if name.startswith(OWN_VARIABLES)}
    env = {**tag.env, **spec.env, **facts}
    return replace(spec, env=env, after=(), wait_before_preempt_seconds=0.0)


def _of(draft: Draft, fleet_job: int) -> Iterator[tuple[Job, FleetTag]]:
    """Yield the assignments of one job of the fleet that this host knows."""
    for job in draft.all():
        if job.tag is not None and job.tag.job == fleet_job:
            yield job, job.tag


def _assigned(draft: Draft, event: ev.Assigned) -> None:
    tag = event.tag
    known = list(_of(draft, tag.job))
    same = next((job for job, other in known if other.fence == tag.fence), None)
    if same is not None:
        if tag.go:
            _go(draft, same)
        return
    if any(other.fence > tag.fence for _, other in known):
        return
    _stop(draft, known, StopCause.REVOKED, f"assigned anew, as {tag.fence}")
    job = _add(draft, fleet_spec(event.spec, tag), Assignment(tag=tag, place=event.place))
    draft.note("job.assigned", job, f"{job.label} assigned: job {tag.job} of the fleet", fence=tag.fence)
    older = next((one for one, _ in _of(draft, tag.job) if one.id != job.id and one.state not in ENDED), None)
    refusal = event.refusal
    if tag.fence <= draft.settled_fence:
        refusal = f"an old order: {tag.fence} is not above {draft.settled_fence}, which is settled"
    elif older is not None:
        refusal = f"{older.label}, the same job as before, still stops"
    if refusal:
        give_back(draft, job, refusal)


def _add(draft: Draft, spec: JobSpec, assignment: Assignment) -> Job:
    job = Job(
        id=draft.next_job,
        spec=spec,
        submitted_at=draft.now,
        image_ready=spec.image is None,
        reason="assigned",
        preemptions=assignment.tag.preemptions,
        failures=assignment.tag.failures,
        assignment=assignment,
    )
    draft.next_job = JobId(draft.next_job + 1)
    return draft.put(job)


def _go(draft: Draft, job: Job) -> None:
    if job.assignment is None or job.assignment.tag.go or job.state in ENDED:
        return
    tag = replace(job.assignment.tag, go=True)
    go_on(draft, draft.put(replace(job, assignment=replace(job.assignment, tag=tag))))


def _revoked(draft: Draft, event: ev.Revoked) -> None:
    known = [(job, tag) for job, tag in _of(draft, event.job) if tag.fence <= event.fence]
    cause = StopCause.REVOKED if event.requeue else StopCause.CANCEL
    reason = event.reason or ("taken back by the coordinator" if event.requeue else "cancelled")
    _stop(draft, known, cause, reason)
    if all(tag.fence != event.fence for _, tag in known):
        # It came before what it revokes, which must not be taken any more: this is said as of any other.
        tag = FleetTag(job=event.job, fence=event.fence)
        spec = JobSpec(name=f"fleet-{event.job}", command=())
        give_back(draft, _add(draft, spec, Assignment(tag=tag, place=Place(), taken=True)), reason)


def _stop(draft: Draft, known: list[tuple[Job, FleetTag]], cause: StopCause, reason: str) -> None:
    for job, _ in known:
        if job.state not in ENDED:
            begin_stop(draft, job, cause, reason)


def _settled(draft: Draft, event: ev.Settled) -> None:
    for job, tag in _of(draft, event.job):
        if tag.fence == event.fence and job.state in ENDED and job.assignment is not None:
            draft.put(replace(job, assignment=replace(job.assignment, settled=True)))
            draft.settled_fence = max(draft.settled_fence, event.fence)


def _lease_ended(draft: Draft) -> None:
    """Stop what may be started elsewhere soon."""
    reason = "the coordinator was not heard for longer than the lease"
    for job in draft.all():
        tag = job.tag
        if tag is not None and job.state not in ENDED and tag.on_host_lost is OnHostLost.REQUEUE:
            begin_stop(draft, job, StopCause.LEASE, reason)

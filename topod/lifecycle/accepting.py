"""Whether a host takes what the coordinator assigns to it: its own plan must be as good as the one promised.

The coordinator planned on what the host last told. The host plans anew on what is so now, by the same rules
as for its own jobs. It takes the assignment if its plan stops nobody whom the coordinator did not name, and
if its GPUs miss the affinity by no more steps than the coordinator's; where it would rather stop others, it
plans once more with those who were named only. Which GPUs it takes then is its own
affair: where the coordinator's place is still to be had, the host's plan is no worse by the same costs.
"""

from collections.abc import Sequence
from dataclasses import replace

from topod.lifecycle.draft import Draft
from topod.lifecycle.effects import PullImage
from topod.lifecycle.states import Assignment, Job
from topod.model.assignment import Place
from topod.model.job import Allocation, JobId
from topod.model.occupancy import Block, Occupancy
from topod.model.plan import Plan, Refusal
from topod.preemption.refusal import gpu_names
from topod.preemption.search import plan


def may_wait(job: Job, now: float) -> bool:
    """Say whether a pending job may stay so: one of the fleet waits for no room here."""
    if job.assignment is None or job.frozen is not None or job.not_before > now:
        return True
    return job.assignment.taken and not job.image_ready


def pulls(job: Job) -> bool:
    """Say whether a pending job waits for its image; before it is pulled there must be room for the job."""
    return not job.image_ready and (job.assignment is None or job.assignment.taken)


def as_expected(
    draft: Draft, job: Job, answer: Plan, taken: Occupancy, blocks: Sequence[Block] = ()
) -> Plan | Refusal:
    """Return the plan that a job is placed by, `answer` being the host's own for what is `taken`.

    Where that is not as the coordinator expects, it is the best that stops nobody else than it named: what
    jobs over several hosts cost on the others, the coordinator knows better. The `blocks` are left alone.
    """
    worse = unexpected(draft, job, answer)
    if worse is None or job.assignment is None:
        return answer
    victims = job.assignment.place.victims
    holders = tuple(
        holder if holder.job in victims else replace(holder, evictable=False) for holder in taken.holders
    )
    taken = replace(taken, holders=holders, blocks=(*taken.blocks, *blocks))
    as_named = plan(draft.tables, taken, job.spec.request)
    if isinstance(as_named, Plan) and unexpected(draft, job, as_named) is None:
        return as_named
    return Refusal(reason=worse)


def unexpected(draft: Draft, job: Job, answer: Plan) -> str | None:
    """Return in which way a plan is worse than what the coordinator expects; None where it is not."""
    if job.assignment is None or job.frozen is not None or job.pinned_reserved:
        return None
    place, tables = job.assignment.place, draft.tables
    others = [name for name in answer.victims if name not in place.victims]
    if others:
        names = ", ".join(draft.jobs[JobId(int(name))].label for name in others)
        return f"the coordinator did not expect that {names} would have to be stopped for it"
    wanted = _mask(place.gpus)
    if wanted > tables.all_gpus or wanted.bit_count() != len(answer.gpus):
        return (
            f"the coordinator expected GPUs {list(place.gpus)}, which are not what it asks for on this host"
        )
    steps, level = tables.steps(job.spec.request.affinity), job.spec.request.affinity.value
    if steps[_mask(answer.gpus)] > steps[wanted]:
        there, here = gpu_names(wanted), gpu_names(_mask(answer.gpus))
        return f"it would get {here} now, which miss affinity {level} by more than {there}"
    return None


def named(job: Job, victims: tuple[JobId, ...]) -> bool:
    """Say whether the coordinator named all of them as victims of the job."""
    return job.assignment is None or all(str(one) in job.assignment.place.victims for one in victims)


def take(draft: Draft, job: Job) -> Job:
    """Agree to run a job of the fleet for which there is room now; its image is pulled if it is not there."""
    if job.assignment is None or job.assignment.taken:
        return job
    job = draft.put(replace(job, assignment=replace(job.assignment, taken=True)))
    if not job.image_ready:
        draft.retell(job, f"waits for image {job.spec.image}")
        draft.do(PullImage(job=job.id, spec=job.spec))
    return job


def placed_by_host(assignment: Assignment | None, allocation: Allocation | None) -> Assignment | None:
    """Return the assignment of a job that has run: if it starts once more, nobody is stopped for it."""
    if assignment is None or allocation is None:
        return assignment
    return replace(assignment, place=Place(gpus=allocation.gpu_indices))


def _mask(gpus: tuple[int, ...]) -> int:
    mask = 0
    for index in gpus:
        mask |= 1 << max(index, 0)
    return mask

"""A priority that changes in the middle of a preemption: nobody is stopped, or started, in vain.

- A victim that is no longer below its preemptor gets its place back, and the preemptor is placed anew before
  it runs. A victim whose hook still runs goes on as if nothing had been; one that was told to stop runs again
  where it was, before its equals.
- A preemptor whose container is still being made has stopped nobody. Who goes before it plans as if it were
  not there.

Once the preemptor is being launched it runs: then a victim that was raised waits like any other job.
Each rule asks for a strict order of priorities that one change makes, so none can undo the other without end.
"""

from dataclasses import replace

from topod.lifecycle.draft import Draft
from topod.lifecycle.ending import unplace
from topod.lifecycle.fairness import standing
from topod.lifecycle.jobtable import Role
from topod.lifecycle.starting import is_clear, is_promised
from topod.lifecycle.states import Job, JobState, StopCause, StopPhase
from topod.model.job import OnPreempt


def give_way(draft: Draft) -> None:
    """Place those anew who wait for victims that are no longer below them."""
    for job in draft.jobs.having(Role.PROMISED):
        victims = [found for ident in job.victims if (found := draft.get(ident)) is not None]
        above = [victim for victim in victims if _is_above(draft, victim, job) and _comes_back(victim)]
        if not above:
            continue
        first = above[0]
        unplace(draft, job, f"{first.label}, priority {first.priority} now, is not below it any more")
        for victim in above:
            # Whoever is planned from now on must not take for free what this one goes back to. What others
            # were promised already they keep: it counted as free.
            if (
                victim.state is JobState.STOPPING
                and is_clear(draft, victim)
                and not is_promised(draft, victim)
            ):
                draft.put(replace(victim, pinned=victim.allocation, pinned_reserved=True))


def _is_above(draft: Draft, victim: Job, job: Job) -> bool:
    """Say whether `job` may not stop a victim any more; one that was stopped must be able to stop it in turn.

    Else it would wait all the same: `job` is protected as one that was preempted often, or blocked for long.
    """
    protected = job.priority if may_be_spared(victim) else standing(job, draft.now, draft.rules)
    return victim.priority >= protected


def _comes_back(victim: Job) -> bool:
    """Say whether a victim that is out, or on its way, will run again."""
    if victim.state is JobState.PREEMPTED:
        return True
    stop = victim.stop
    if victim.state is not JobState.STOPPING or stop is None or stop.cause is not StopCause.PREEMPT:
        return False
    if stop.phase is StopPhase.STUCK:
        return False
    return victim.spec.on_preempt is not OnPreempt.CANCEL or may_be_spared(victim)


def may_be_spared(victim: Job) -> bool:
    """Say whether a victim has only been asked to save so far, by a command beside it."""
    hook = victim.spec.checkpoint
    asked = victim.stop is not None and victim.stop.phase is StopPhase.HOOK
    return asked and hook is not None and hook.signal is None

"""What must never happen on a host, whatever goes wrong: checked at every commit, call and start.

The referee trusts nothing that topod says: it looks at what is durable and at what really runs.
"""

from collections import Counter
from typing import Final

from tests.simulation.chance import World
from tests.simulation.disk import Disk
from tests.simulation.engine import Box, Engine
from tests.simulation.fair import SERVICE, effective, over_quota, still_running
from tests.simulation.fleet import Coordinator
from tests.simulation.reasons import untrue
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.effects import Create
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import (
    ENDED,
    HOLDING,
    HostState,
    Job,
    JobState,
    Stage,
    StopCause,
    StopPhase,
)
from topod.model.container import Signal
from topod.model.cpuset import CpuSet
from topod.model.job import AfterCondition, Allocation, JobId, OnHostLost, OnPreempt
from topod.model.rules import Rules

GRACE_SLACK: Final = 0.05
LEASE_SLACK: Final = 10.0
"""Longer than the core, the disk and whatever was on its way take."""


def _may_be_elsewhere(job: Job) -> bool:
    """Say whether a job that has not ended is placed elsewhere when its host is not heard."""
    lost = OnHostLost.REQUEUE
    return job.tag is not None and job.state not in ENDED and job.tag.on_host_lost is lost


def shares(a: Allocation, b: Allocation) -> bool:
    return bool(set(a.gpus) & set(b.gpus)) or bool(a.cpus & b.cpus)


class Referee:
    """Sees everything; says what was against the rules."""

    def __init__(
        self, world: World, tables: TopologyTables, rules: Rules, *, disk: Disk, engine: Engine
    ) -> None:
        self._world = world
        self._tables = tables
        self._rules = rules
        self._disk = disk
        self._engine = engine
        self.fleet: Coordinator | None = None
        self._pairs: dict[tuple[int, int], JobId] = {}
        self.accepted: set[JobId] = set()
        self.cancelled: set[JobId] = set()
        """Jobs that a user asked to cancel, heard or not."""
        self.requeued: set[JobId] = set()
        """Jobs that a user wanted queued again, heard or not."""
        self._withdrawn: set[str] = set()
        """Containers to be removed before they begin: whoever begins meanwhile is gone before it is seen."""

    @property
    def _durable(self) -> HostState:
        return self._disk.content.state

    def _foul(self, text: str) -> None:
        self._world.violated(text)

    # --- what is decided ----------------------------------------------------------------------------------

    def committed(self, base: HostState, outcome: Outcome, now: float) -> None:
        """Look at a decision that has just become durable."""
        state = outcome.state
        for job in outcome.changed:
            self._check_step(base, job)
            self._check_assigned(job, now)
            if job.state is JobState.STOPPING:
                self._check_victim(base, state, job, now)
        for ident in base.jobs:
            if ident not in state.jobs and not any(
                job.id == ident and job.state in ENDED and not job.leftovers for job in outcome.changed
            ):
                self._foul(f"job {ident} is forgotten before it ended")
        self._check_room(state)
        self._check_arrays(state)
        if over := over_quota(state, self._rules):
            self._foul(over)
        for job in outcome.changed:
            before = base.jobs.get(job.id)
            if job.state is JobState.STARTING and (before is None or before.attempt < job.attempt):
                self._check_placed(state, job)

    def stepped(self, outcome: Outcome, now: float) -> None:
        """Look at what the core says of the jobs that wait."""
        made = any(isinstance(effect, Create) for effect in outcome.effects)
        restored = any(job.frozen and job.placed_at == now for job in outcome.changed)
        if made or restored or any(notice.name == "job.unpinned" for notice in outcome.notices):
            return  # who was looked at before the one that starts, or lets go, speaks of the moment before
        for job in outcome.state.jobs.values():
            if job.state is JobState.PENDING and (
                why := untrue(self._tables, self._rules, outcome.state, job, now)
            ):
                self._foul(f"{job.label} waits and says: {job.reason!r}; but {why}")

    def _check_assigned(self, job: Job, now: float) -> None:
        """A pair (fleet job, fence) is placed as one job for ever, and waits for no room here."""
        tag = job.tag
        if tag is None:
            return
        if job.attempt and self._pairs.setdefault((tag.job, tag.fence), job.id) != job.id:
            self._foul(f"{job.label}: job {tag.job} of the fleet was taken as {tag.fence} before")
        if job.state is JobState.PENDING and job.image_ready and job.not_before <= now and job.frozen is None:
            self._foul(f"{job.label}, of the fleet, waits here: {job.reason}")

    def look_at_lease(self, alive_since: float) -> None:
        """Long after the end of the lease all is told to stop that may run elsewhere, if a topod is there to do it."""
        now, disk = self._world.now, self._disk
        if self.fleet is None:
            return
        over_for = self.fleet.steady() - self.fleet.lease_until
        well_for = min(now - alive_since, now - disk.full_until, now - disk.read_only_until, over_for)
        if well_for < LEASE_SLACK:
            return
        for job in self._durable.jobs.values():
            if _may_be_elsewhere(job) and job.state is not JobState.STOPPING:
                self._foul(f"{job.label} is {job.state} {over_for:.0f} s after the end of the lease")

    def _check_step(self, base: HostState, job: Job) -> None:
        before = base.jobs.get(job.id)
        if before is None:
            if job.id < base.next_job:
                self._foul(f"{job.label} rises from the dead")
            return
        if before.state in ENDED and job.state is not before.state:
            self._foul(f"{job.label} was {before.state} and is {job.state}")
        if job.attempt < before.attempt:
            self._foul(f"{job.label} counts attempts backwards")
        self._check_requeued(before, job)

    def _check_requeued(self, before: Job, job: Job) -> None:
        """Who is queued again was to be, keeps its place in the queue, and is not counted as preempted."""
        stop = before.stop or job.stop
        if stop is None or stop.cause is not StopCause.REQUEUE:
            return
        if job.id not in self.requeued or job.spec.on_preempt is OnPreempt.CANCEL:
            self._foul(f"{job.label} is requeued, and nobody may ask for that: {job.reason}")
        same = (before.submitted_at, before.preemptions) == (job.submitted_at, job.preemptions)
        if before.stop is not None and job.state is JobState.PENDING and not same:
            self._foul(f"{job.label} is requeued and pays for it")

    def _check_victim(self, base: HostState, state: HostState, job: Job, now: float) -> None:
        """A job that is told to stop for another was named by that one's plan, and may be stopped."""
        before = base.jobs.get(job.id)
        stop = job.stop
        if before is None or before.state is JobState.STOPPING or stop is None or before.state not in HOLDING:
            return
        if stop.cause is not StopCause.PREEMPT:
            return
        by = state.jobs.get(stop.by) if stop.by is not None else None
        planned = base.jobs.get(stop.by) if stop.by is not None else None
        if by is None or by.state is not JobState.STARTING or planned is None or by.allocation is None:
            self._foul(f"{job.label} is stopped for {stop.by}, which is not being started")
            return
        # A frozen job has its container: it names its victims and stops them in one step.
        named = planned.victims if planned.frozen is None else by.victims
        if job.id not in by.victims or job.id not in named:
            self._foul(f"{job.label} is stopped, and the plan of {by.label} did not name it")
        self._check_named(job, by)
        if job.allocation is None or not shares(job.allocation, by.allocation):
            self._foul(f"{job.label} is stopped in vain for {by.label}")
        mine = effective(job, self._rules)  # its priority may be changed in the very same step
        if not job.spec.preemptible or mine >= by.spec.request.priority:
            self._foul(f"{job.label} may not be stopped for {by.label}")
        waited = by.spec.wait_before_preempt_seconds
        if waited and (by.ready_at is None or now < by.ready_at + waited):
            self._foul(f"{job.label} is stopped though {by.label} was to wait {waited} s first")
        least = max((budget.min_running for budget in self._rules.budgets), default=0)
        counted = before.state is JobState.RUNNING and SERVICE in job.spec.labels
        if counted and still_running(state, job) < least:
            self._foul(f"{job.label} is stopped and breaks the disruption budget of its service")
        protected = before.started_at is not None and now < before.started_at + job.spec.min_runtime_seconds
        if before.state is JobState.RUNNING and protected:
            self._foul(f"{job.label} is stopped for {by.label} in its minimum run time")

    def _check_named(self, job: Job, by: Job) -> None:
        """Who is stopped for a job of the fleet was named by the coordinator; a frozen one comes back by itself."""
        known = None if by.assignment is None else by.assignment.place.victims
        if known is not None and by.frozen is None and str(job.id) not in known:
            self._foul(f"{job.label} is stopped for {by.label}, and the coordinator did not name it")

    def _check_placed(self, state: HostState, job: Job) -> None:
        """Nobody is placed on what is known to be ill, in foreign use, drained or quarantined."""
        assert job.allocation is not None
        if state.drain is not None or (state.blind is not None and job.allocation.gpus):
            self._foul(f"{job.label} is placed though the host is drained, or nobody knows how its GPUs are")
        for uuid in job.allocation.gpus:
            for mark in state.marks.get(uuid, ()):
                if mark.blocks:
                    self._foul(f"{job.label} is placed on {uuid}, which is {mark.kind}")
        for other in state.jobs.values():
            reserved = other.pinned if other.pinned_reserved and other.id != job.id else None
            if reserved is not None and shares(reserved, job.allocation) and other.id not in job.victims:
                self._foul(f"{job.label} is placed on what is reserved for {other.label}, which moves")
        self._check_parents(state, job)
        for cpus in state.foreign_cpus:
            if CpuSet.parse(cpus) & job.allocation.cpus:
                self._foul(f"{job.label} is placed on CPUs in foreign use")

    def _check_parents(self, state: HostState, job: Job) -> None:
        """A job starts only when those that it waits for have ended as it wants."""
        for wanted in job.spec.after:
            for parent in self._family(wanted.job):
                now = state.jobs.get(parent.id, parent)
                if now.state not in ENDED:
                    self._foul(f"{job.label} does not wait for {now.label}")

    def _family(self, first: JobId) -> list[Job]:
        """The job and, if it is the first of an array, all its members, as they are on the disk."""
        found = [self._disk.job(ident) for ident in sorted(self._disk.content.rows)]
        return [
            job
            for job in found
            if job is not None and (job.id == first or (job.array is not None and job.array.id == first))
        ]

    def _check_arrays(self, state: HostState) -> None:
        held: Counter[int] = Counter()
        for job in state.jobs.values():
            if job.array is not None and job.state in HOLDING:
                held[job.array.id] += 1
                if job.array.limit is not None and held[job.array.id] > job.array.limit:
                    self._foul(f"more than {job.array.limit} of array {job.array.id} hold something")

    def _check_room(self, state: HostState) -> None:
        holding = [job for job in state.jobs.values() if job.state in HOLDING]
        for i, one in enumerate(holding):
            for other in holding[i + 1 :]:
                if one.allocation is None or other.allocation is None:
                    self._foul(f"{one.label} or {other.label} holds nothing in state {one.state}")
                elif shares(one.allocation, other.allocation) and not (
                    self._waits_for(one, other) or self._waits_for(other, one)
                ):
                    self._foul(f"{one.label} ({one.stage}) and {other.label} ({other.stage}) hold the same")

    @staticmethod
    def _waits_for(one: Job, other: Job) -> bool:
        """Say whether `one` is promised what `other` still holds, and may be."""
        if one.state is not JobState.STARTING or one.stage not in (Stage.CREATING, Stage.CLEARING):
            return False
        if other.state is JobState.STOPPING:
            stuck = other.stop is not None and other.stop.phase is StopPhase.STUCK
            return not stuck or one.stage is Stage.CREATING  # planned anew once its container is there
        return one.stage is Stage.CREATING and other.id in one.victims

    # --- what is asked of the engine ------------------------------------------------------------------------

    def _holder_of(self, handle: str) -> tuple[Job | None, int]:
        job, attempt = (int(part) for part in handle.rsplit("-", 2)[1:])
        return self._durable.jobs.get(JobId(job)), attempt

    def asks_create(self, job: JobId, attempt: int, allocation: Allocation) -> None:
        found = self._durable.jobs.get(job)
        # A job may be over while its container is still being made: only the answer tells its name.
        if found is None and job not in self._disk.content.rows:
            self._foul(f"container {job}-{attempt} is made for no job")
        elif found is None:
            return
        elif found.attempt < attempt:
            self._foul(f"container {job}-{attempt} is made before that is durable")
        elif found.attempt == attempt and found.allocation not in (None, allocation):
            self._foul(f"container {job}-{attempt} is made for other GPUs than the durable ones")

    def asks_start(self, handle: str) -> None:
        job, attempt = self._holder_of(handle)
        if job is None or (job.attempt == attempt and job.stage not in (Stage.LAUNCHING, None)):
            self._foul(f"{handle} is started before that is durable")
        if job is not None and job.attempt == attempt and job.withdrawn is not None:
            self._foul(f"{handle} is started while its start is withdrawn")
        if job is None or job.tag is None or self.fleet is None:
            return
        if job.tag.size > 1 and not job.tag.go:
            self._foul(f"{handle} is started before all its hosts are ready")
        over_for = self.fleet.steady() - self.fleet.lease_until
        disk = self._world.now - max(self._disk.full_until, self._disk.read_only_until)
        if _may_be_elsewhere(job) and over_for > LEASE_SLACK and disk > LEASE_SLACK:
            self._foul(f"{handle} is started {over_for:.0f} s after the end of the lease")

    def asks_signal(self, handle: str, signal: Signal) -> None:
        job, attempt = self._holder_of(handle)
        if job is None or job.attempt != attempt:
            return
        if job.state in (JobState.STARTING, JobState.RUNNING):
            self._foul(f"{handle} gets {signal.value} and the job is {job.state}")
        if signal is Signal.KILL and job.stop and job.stop.phase in (StopPhase.TERM, StopPhase.HOOK):
            self._foul(f"{handle} gets SIGKILL before that is durable")

    def asks_freeze(self, handle: str) -> None:
        job, attempt = self._holder_of(handle)
        if job is not None and job.attempt == attempt and job.state in (JobState.STARTING, JobState.RUNNING):
            self._foul(f"{handle} is to be frozen and the job is {job.state}")

    def asks_remove(self, handle: str) -> None:
        job, attempt = self._holder_of(handle)
        # It is not known to have started, and is not to: nothing else makes sure that it never does.
        unwanted = job is not None and (job.state is JobState.STOPPING or job.withdrawn is not None)
        if job is not None and unwanted and job.stage is Stage.LAUNCHING:
            box = self._engine.boxes.get(handle)
            if box is not None and not box.starts:
                self._withdrawn.add(handle)
            return
        if job is not None and job.attempt == attempt and (job.state in HOLDING or job.frozen):
            self._foul(f"{handle} is removed and {job.label} still is {job.state}, {job.frozen}")

    # --- what really runs -----------------------------------------------------------------------------------

    def container_started(self, box: Box) -> None:
        job = self._durable.jobs.get(box.job)
        if box.life > 1 and job is not None and job.allocation not in (None, box.allocation):
            self._foul(f"{box.handle} is restored elsewhere than {job.label} was placed")
        if box.starts > 1:
            self._foul(f"{box.handle} is started twice")
        if job is None or job.attempt != box.attempt or job.state not in HOLDING:
            self._foul(f"{box.handle} runs on what nobody holds for it: {job.state if job else 'it is over'}")
        for other in self._engine.live():
            if other is box:
                continue
            if other.job == box.job:
                self._foul(f"{other.handle} and {box.handle} run at the same time")
            if shares(other.allocation, box.allocation):
                self._foul(f"{other.handle} and {box.handle} run on the same GPU or CPU")

    def container_signalled(self, box: Box, signal: Signal) -> None:
        if signal is not Signal.KILL:
            return
        asked = [at for told, at in box.told if told is Signal.TERM]
        if not box.spec.grace_seconds:
            return
        if not asked or self._world.now - asked[0] < box.spec.grace_seconds - GRACE_SLACK:
            when = f"{self._world.now - asked[0]:.2f} s after" if asked else "without"
            self._foul(f"{box.handle} gets SIGKILL {when} SIGTERM; its grace is {box.spec.grace_seconds} s")

    # --- how it ended -----------------------------------------------------------------------------------------

    def _may_be_cancelled(self, job: Job, jobs: dict[JobId, Job]) -> bool:
        """Say whether a user asked for it, its own policy did, or what it waited for never came."""
        if self.fleet is not None and job.tag is not None and job.tag.job in self.fleet.cancelled:
            return True
        if job.id in self.cancelled or (job.spec.on_preempt.value == "cancel" and job.preemptions):
            return True
        parents = [(wanted, parent) for wanted in job.spec.after for parent in self._family(wanted.job)]
        bad = {AfterCondition.OK: True, AfterCondition.FAILED: False}
        return any(
            wanted.condition in bad and (parent.state is not JobState.SUCCEEDED) == bad[wanted.condition]
            for wanted, parent in parents
        )

    def _meddled(self, job: Job) -> bool:
        """Say whether somebody else ended the last container of a job, which may never have been started."""
        mine = [box for box in self._engine.past if box.job == job.id and box.attempt == job.attempt]
        return any(box.meddled for box in mine)

    def check_ends(self, jobs: dict[JobId, Job]) -> None:
        """Every job ended, and as it really ended."""
        for ident, job in sorted(jobs.items()):
            boxes = [box for box in self._engine.past if box.job == ident and box.starts]
            last = boxes[-1] if boxes else None
            if job.state not in ENDED:
                self._foul(f"{job.label} never ends: {job.state}, {job.stage}: {job.reason}")
            elif job.state is JobState.SUCCEEDED and (last is None or last.exit_code != 0):
                self._foul(f"{job.label} is said to have succeeded, and did not")
            elif job.state is JobState.CANCELLED and not self._may_be_cancelled(job, jobs):
                self._foul(f"{job.label} is cancelled, and nobody asked for it: {job.reason}")
            elif job.state is JobState.LOST and last is not None and not self._meddled(job):
                self._foul(f"{job.label} is said to be lost, and was not: {job.reason}")
            elif (
                job.state is JobState.FAILED
                and last is not None
                and last.attempt == job.attempt
                and last.ended_well
                and not last.meddled
                and last.handle not in self._withdrawn
            ):
                limit = job.spec.max_runtime_seconds
                if last.exit_code == 0 and not (limit is not None and "time limit" in job.reason):
                    self._foul(f"{job.label} ended well and is said to have failed: {job.reason}")
        for ident in sorted(self.accepted - set(jobs)):
            self._foul(f"job {ident} was accepted and is nowhere")
        for box in self._engine.boxes.values():
            self._foul(f"container {box.handle} is left behind: {box.status}")

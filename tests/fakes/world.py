"""A host in a box: the real core over a pretended runtime, driven by one seed.

Containers are entries of a dictionary; every effect is answered late, in any order between jobs, and may
fail. The world checks, whenever it acts, what must never happen.
"""

import random
from collections import deque
from dataclasses import dataclass, field, replace

from topod.flextopo.tables import TopologyTables
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.accepting import may_wait
from topod.lifecycle.deadlines import next_deadline
from topod.lifecycle.fairness import Usage, budget_uses
from topod.lifecycle.machine import step
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import ENDED, HostState, Job, JobState, Stage, StopCause
from topod.model.assignment import FleetTag, Place
from topod.model.budgets import budget_names
from topod.model.container import ContainerStatus, Observed, Signal
from topod.model.job import Allocation, JobId, JobSpec
from topod.model.rules import NO_RULES, Rules
from topod.model.topology import Topology


@dataclass
class Container:
    job: JobId
    attempt: int
    allocation: Allocation
    status: ContainerStatus = ContainerStatus.CREATED
    ignores_term: bool = False
    exit_code: int | None = None
    told: list[Signal] = field(default_factory=list)


class World:
    """One emulated host. `faults` is the chance that an effect fails."""

    def __init__(
        self, topology: Topology, seed: int = 0, faults: float = 0.0, rules: Rules = NO_RULES
    ) -> None:
        self.rules = rules
        self.tables = TopologyTables(topology)
        self.random = random.Random(seed)
        self.faults = faults
        self.now = 1000.0
        self.state = HostState()
        self.ended: dict[JobId, Job] = {}
        self.containers: dict[str, Container] = {}
        self.lanes: dict[JobId, deque[fx.Effect]] = {}
        self.exits: deque[ev.Event] = deque()
        self.starts: dict[tuple[JobId, int], int] = {}
        self.notices: list[fx.Notice] = []
        self.submitted: list[JobId] = []
        self.tags: dict[tuple[int, int], JobId] = {}
        """What every pair of the fleet that was ever placed is here."""

    # --- what a user does -----------------------------------------------------------------------------

    def submit(self, spec: JobSpec) -> JobId:
        job = self.state.next_job
        self.submitted.append(job)
        self.apply(ev.Submitted(spec=spec))
        return job

    def assign(self, spec: JobSpec, place: Place, tag: FleetTag) -> JobId:
        """Let the coordinator assign a job; return the id that it has here if it was new."""
        job = self.state.next_job
        self.apply(ev.Assigned(tag=tag, spec=spec, place=place))
        if self.state.next_job != job:
            self.submitted.append(job)
        return job

    def job(self, ident: int) -> Job:
        return self.state.jobs.get(JobId(ident)) or self.ended[JobId(ident)]

    def states(self) -> dict[int, str]:
        return {ident: self.job(ident).state.value for ident in self.submitted}

    # --- the shell ------------------------------------------------------------------------------------

    def decide(self, event: ev.Event) -> Outcome:
        return step(self.tables, self.state, event, self.now, self.rules)

    def apply(self, event: ev.Event) -> None:
        outcome = self.decide(event)
        for job in outcome.changed:
            if job.id not in outcome.state.jobs:
                self.ended[job.id] = job
        self._check_rules(self.state, outcome.state)
        self.state = outcome.state
        self.notices.extend(outcome.notices)
        for effect in outcome.effects:
            lane = effect.job if not isinstance(effect, fx.RemoveStray) else JobId(0)
            self.lanes.setdefault(lane, deque()).append(effect)
        self.check()

    def act(self) -> bool:
        """Carry out one effect or report one exit; False when there is nothing to do."""
        choices = [job for job, lane in self.lanes.items() if lane]
        if self.exits and (not choices or self.random.random() < 0.5):
            self.apply(self.exits.popleft())
            return True
        if not choices:
            return False
        self._carry_out(self.lanes[self.random.choice(sorted(choices))].popleft())
        return True

    def run(self, limit: int = 100_000) -> None:
        """Act until nothing is left to do; time stands still."""
        for _ in range(limit):
            if not self.act():
                return
        raise AssertionError("the host does not come to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass, with a tick at every deadline on the way."""
        until = self.now + seconds
        for _ in range(10_000):
            self.run()
            due = next_deadline(self.state, self.now, self.rules)
            if due is None or due > until:
                self.now = until
                self.apply(ev.Tick())
                self.run()
                return
            self.now = max(self.now, due)
            self.apply(ev.Tick())
        raise AssertionError("time does not pass: a deadline is always due")

    def exit(self, ident: int, exit_code: int = 0) -> None:
        """Let the command of a running job end by itself."""
        job = self.job(ident)
        assert job.handle is not None
        self._end(self.containers[job.handle], exit_code)

    def look(self) -> tuple[Observed, ...]:
        """Return what the runtime would say now."""
        return tuple(
            Observed(job=c.job, attempt=c.attempt, handle=handle, status=c.status, exit_code=c.exit_code)
            for handle, c in sorted(self.containers.items())
        )

    def sweep(self) -> None:
        """Look at all containers, as the daemon does from time to time."""
        self.apply(ev.Swept(containers=self.look(), at=self.now))

    def crash(self) -> None:
        """Kill the daemon: answers on their way are lost, containers go on; then start it again."""
        for lane in self.lanes.values():
            if lane and self.random.random() < 0.5:
                self._carry_out(lane.popleft(), heard=False)
        self.lanes.clear()
        self.exits.clear()
        self.apply(ev.Recovered(containers=self.look()))

    # --- the pretended runtime ------------------------------------------------------------------------

    def _carry_out(self, effect: fx.Effect, *, heard: bool = True) -> None:
        answer = self._do(effect)
        if heard and answer is not None:
            self.apply(answer)

    def _fails(self) -> bool:
        return self.random.random() < self.faults

    def _do(self, effect: fx.Effect) -> ev.Event | None:  # noqa: C901, PLR0911, PLR0912 - one case for each effect
        match effect:
            case fx.PullImage(job=job):
                if self._fails():
                    return ev.ImageFailed(job=job, error="registry is away", final=False)
                return ev.ImageReady(job=job)
            case fx.Create(job=job, attempt=attempt, allocation=allocation):
                if self._fails():
                    return ev.CreateFailed(job=job, attempt=attempt, error="engine is away", final=False)
                handle = f"c-{job}-{attempt}"
                self.containers.setdefault(
                    handle, Container(job, attempt, allocation, ignores_term=self._fails())
                )
                return ev.Created(job=job, attempt=attempt, handle=handle)
            case fx.CheckDevices(job=job, attempt=attempt):
                return ev.DevicesFree(job=job, attempt=attempt)
            case fx.Launch():
                return self._launch(effect)
            case fx.Withdraw(job=job, attempt=attempt, handle=handle):
                container = self.containers.get(handle)
                if container is not None and container.status is ContainerStatus.RUNNING:
                    return ev.Started(job=job, attempt=attempt, at=self.now)
                self.containers.pop(handle, None)
                return ev.StartFailed(job=job, attempt=attempt, error="stopped before it ran", final=False)
            case fx.RunHook(job=job, attempt=attempt):
                return ev.HookDone(job=job, attempt=attempt, ok=not self._fails())
            case fx.Freeze(job=job, attempt=attempt):
                return ev.Frozen(job=job, attempt=attempt, ok=False, text="no checkpoints here")
            case fx.Deliver(job=job, attempt=attempt, handle=handle, signal=signal):
                container = self.containers.get(handle)
                if container is not None and container.status is ContainerStatus.RUNNING:
                    self._check_told(container)
                    container.told.append(signal)
                    if signal is Signal.KILL or not container.ignores_term:
                        self._end(container, 137 if signal is Signal.KILL else 143)
                return ev.Delivered(job=job, attempt=attempt, signal=signal)
            case fx.Collect(job=job, attempt=attempt, handle=handle):
                self.containers.pop(handle, None)
                return ev.Collected(job=job, attempt=attempt)
            case fx.RemoveStray(handle=handle):
                self.containers.pop(handle, None)
                return None

    def _launch(self, effect: fx.Launch) -> ev.Event:
        container = self.containers.get(effect.handle)
        if container is None or (container.status is ContainerStatus.CREATED and self._fails()):
            return ev.StartFailed(
                job=effect.job,
                attempt=effect.attempt,
                error="start failed",
                final=False,
                in_doubt=effect.again,
            )
        if container.status is ContainerStatus.CREATED:
            key = (effect.job, effect.attempt)
            self.starts[key] = self.starts.get(key, 0) + 1
            assert self.starts[key] == 1, f"{key} was started twice"
            self._check_room(container)
            container.status = ContainerStatus.RUNNING
        return ev.Started(job=effect.job, attempt=effect.attempt, at=self.now)

    def _end(self, container: Container, exit_code: int) -> None:
        if container.status is ContainerStatus.RUNNING:
            container.status = ContainerStatus.EXITED
            container.exit_code = exit_code
            self.exits.append(ev.Exited(job=container.job, attempt=container.attempt, exit_code=exit_code))

    # --- what must never happen -----------------------------------------------------------------------

    def _check_room(self, container: Container) -> None:
        """A container is started: nobody else may run on its GPUs or pinned CPUs."""
        for other in self.containers.values():
            if other.status is not ContainerStatus.RUNNING or other is container:
                continue
            shared = set(other.allocation.gpus) & set(container.allocation.gpus)
            assert not shared, f"jobs {other.job} and {container.job} both on {shared}"
            assert not other.allocation.cpus & container.allocation.cpus, "a pinned CPU is held twice"

    def _check_told(self, container: Container) -> None:
        """A container is signalled: its job must be stopping, and a victim must have been named."""
        job = self.state.jobs[container.job]
        assert job.state is JobState.STOPPING, f"{job.label} is {job.state} and gets a signal"

    def _check_rules(self, before: HostState, after: HostState) -> None:
        """No quota is overdrawn, and preemption leaves every service what it must keep."""
        usage = Usage(after.jobs, self.rules)
        for job in after.jobs.values() if self.rules.quotas else ():
            assert all(use.gpus <= use.limit for use in usage.of(job.spec)), list(usage.of(job.spec))
        stopped = [
            job
            for job in after.jobs.values()
            if job.stop is not None
            and job.stop.cause is StopCause.PREEMPT
            and (old := before.jobs.get(job.id)) is not None
            and old.state is JobState.RUNNING
        ]
        names = {name for job in stopped for name in budget_names(job.spec, self.rules)}
        for budget in budget_uses(after.jobs.values(), self.rules):
            assert budget.name not in names or budget.running >= budget.min_running, budget

    def _check_fleet(self) -> None:
        """A pair (fleet job, fence) is one job here for ever, and no two of one fleet job live together."""
        alive: set[int] = set()
        for job in self.state.jobs.values():
            if job.tag is None:
                continue
            if job.attempt:
                known = self.tags.setdefault((job.tag.job, job.tag.fence), job.id)
                assert known == job.id, f"{job.tag} is job {known} and job {job.id}"
            if job.state not in ENDED:
                assert job.tag.job not in alive, f"{job.tag} lives twice"
                alive.add(job.tag.job)
            unready = job.in_gang and not job.tag.go
            assert not unready or job.stage in (None, Stage.CREATING), (
                f"{job.label} did not wait for the others"
            )
            assert not unready or not job.starts, f"{job.label} runs without the others"

    def check(self) -> None:  # noqa: C901 - a list of rules
        """Check the state against the rules that hold after every step."""
        self._check_fleet()
        jobs = self.state.jobs
        for ident in self.submitted:
            assert (ident in jobs) != (ident in self.ended) or ident in jobs, f"job {ident} is lost"
        placed = [
            job for job in jobs.values() if job.state is JobState.STARTING and job.stage is not Stage.CREATING
        ]
        for job in jobs.values():
            if job.state is JobState.PENDING:
                assert job.reason, f"{job.label} waits without a reason"
                assert may_wait(job, self.now), f"{job.label}, of the fleet, waits for room: {job.reason}"
            if job.state in ENDED:
                unsettled = job.assignment is not None and not job.assignment.settled
                assert job.leftovers or unsettled, "an ended job that left nothing behind is put to rest"
            if job.state is JobState.STARTING:
                assert job.allocation is not None
                for other in jobs.values():
                    if other.id == job.id or other.id in job.victims or job.id in other.victims:
                        continue
                    if other.allocation and other.state is JobState.STARTING:
                        assert not set(job.allocation.gpus) & set(other.allocation.gpus), "reserved twice"
        for job in placed:
            assert job.allocation is not None
            for other in jobs.values():
                if other.state is JobState.RUNNING and other.allocation is not None:
                    assert not set(job.allocation.gpus) & set(other.allocation.gpus), (
                        f"{other.label} runs on GPUs cleared for {job.label}"
                    )


def spec(name: str = "job", **changes: object) -> JobSpec:
    """Return a job specification; request fields and job fields may be mixed."""
    base = JobSpec(name=name, command=("run",))
    fields = set(type(base.request).__slots__)
    request = {key: value for key, value in changes.items() if key in fields}
    rest = {key: value for key, value in changes.items() if key not in fields}
    return replace(base, request=replace(base.request, **request), **rest)  # type: ignore[arg-type] # a test builder

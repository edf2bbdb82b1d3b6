"""Users who submit, cancel and change their minds, through the requests that topoctl sends."""

import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

from tests.fakes.world import spec
from tests.simulation.chance import World
from tests.simulation.disk import Disk
from tests.simulation.fair import SERVICE
from tests.simulation.referee import Referee
from topod.daemon.service import Service
from topod.errors import TopodError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle import events as ev
from topod.lifecycle.admission import admit
from topod.lifecycle.moving import find_moves, new_place
from topod.lifecycle.states import Job, JobState, Stage
from topod.model.arrays import ArrayPlan
from topod.model.container import Signal
from topod.model.job import (
    AfterCondition,
    Allocation,
    CheckpointHook,
    Dependency,
    JobId,
    JobSpec,
    OnPreempt,
    RestartPolicy,
)
from topod.model.moves import Goal
from topod.model.request import Affinity, CpuAffinity, Policy, ResourceRequest
from topod.model.rules import NO_RULES
from topod.protocol import replies as rp
from topod.protocol import requests as rq

TRIES: Final = 6
URGENT: Final = 0.15
"""How many jobs take the whole host from all others: what happens to victims only is rare without them."""
HOOKS: Final = (
    CheckpointHook(command=("save",), timeout_seconds=5.0),
    CheckpointHook(signal=Signal.USR1, timeout_seconds=5.0),
)
Tell = Callable[[ev.Event], None]
Ask = Callable[[Callable[[Service], Coroutine[Any, Any, None]]], None]


def random_job(rng: random.Random, tables: TopologyTables, *, deaf: bool, late: bool) -> JobSpec:
    """Return a random job that this host can run when it is empty and well."""
    while True:
        job = _any_job(rng, tables.count, deaf=deaf, late=late)
        if admit(tables, job) is None:
            return job


def _any_job(rng: random.Random, gpus: int, *, deaf: bool, late: bool) -> JobSpec:
    manners = ["quick"] * 4 + ["deaf"] * deaf + ["late"] * late
    seconds = rng.choice((0.0, 0.5, 5.0, 20.0, 60.0, 60.0, 120.0))
    code = rng.choice((0, 0, 0, 0, 1))
    return spec(
        name=rng.choice(("train", "serve", "eval")),
        command=("work", str(seconds), str(code), rng.choice(manners)),
        image=rng.choice(
            ("img:1", "img:1", "img:2", "never:1") if rng.random() < 0.2 else ("img:1", "img:2")
        ),
        user=rng.choice(("alice", "bob")),
        labels=rng.choice(({}, {}, {SERVICE: "chat"}, {SERVICE: "code"})),
        wait_before_preempt_seconds=rng.choice((0.0,) * 5 + (20.0,)),
        gpus=min(gpus, rng.choice((0, 1, 1, 1, 2, 2, 2, 4))),
        cpus=rng.choice((0, 0, "auto", 2, 5)),
        cpu_affinity=rng.choice(list(CpuAffinity)),
        priority=rng.choice((100, 100, 100, 500, 1000)),
        affinity=rng.choice(list(Affinity)),
        policy=rng.choice(list(Policy)),
        preemptible=rng.random() < 0.9,
        grace_seconds=rng.choice((0.0, 2.0, 10.0, 30.0)),
        min_runtime_seconds=rng.choice((0.0,) * 5 + (40.0,)),
        max_runtime_seconds=rng.choice((None,) * 6 + (40.0,)),
        on_preempt=rng.choice((OnPreempt.REQUEUE, *[OnPreempt.CHECKPOINT] * 3, OnPreempt.CANCEL)),
        restart=rng.choice(list(RestartPolicy)),
        max_restarts=2,
        checkpoint=rng.choice((None, *HOOKS, HOOKS[0])),
    )


class Users:
    """What the users of one host do. `ask` hands a request to the daemon, if one is there."""

    def __init__(
        self, world: World, tables: TopologyTables, disk: Disk, referee: Referee, *, ask: Ask, tell: Tell
    ) -> None:
        self._world = world
        self._rng = world.chance.rng
        self._tables = tables
        self._disk = disk
        self._referee = referee
        self._ask = ask
        self._tell = tell
        self._submits = 0
        self._by_token: dict[str, JobId] = {}

    def submit(self) -> None:
        on = self._world.chance.on
        job = random_job(self._rng, self._tables, deaf=on["box.deaf"], late=on["box.exits_late"])
        if self._rng.random() < URGENT:
            whole = ResourceRequest(gpus=self._tables.count, priority=2000)
            job = replace(job, request=whole, wait_before_preempt_seconds=0.0)
        if job.command[3] == "deaf":
            self._world.chance.happened["box.deaf"] += 1
        elif job.command[3] == "late":
            self._world.chance.happened["box.exits_late"] += 1
        self._submits += 1
        array = None
        if self._rng.random() < 0.15:
            array = ArrayPlan(indices=(0, 1, 2), limit=self._rng.choice((None, 1, 2)))
        if self._by_token and self._rng.random() < 0.2:
            first = self._rng.choice(list(self._by_token.values()))
            condition = self._rng.choice(list(AfterCondition))
            job = replace(job, after=(Dependency(job=first, condition=condition),))
        request = rq.Submit(spec=job, array=array, token=f"token-{self._submits}")
        self._try_submit(request, TRIES)

    def _try_submit(self, request: rq.Submit, tries: int) -> None:
        """Submit until topod says that it has the job; the token keeps it from running twice."""
        if request.token in self._by_token or not tries:
            return

        async def submit(service: Service) -> None:
            try:
                reply = await service.answer(request)
            except TopodError as error:
                self._world.say(f"user: {request.token} refused: {error.message}")
                return
            assert isinstance(reply, rp.Jobs)
            self._accepted(request.token, [JobId(job.id) for job in reply.jobs])

        self._ask(submit)
        self._world.after(self._rng.uniform(1.0, 20.0), lambda: self._try_submit(request, tries - 1))

    def _accepted(self, token: str, jobs: list[JobId]) -> None:
        job = jobs[0]
        self._world.say(f"user: {token} is job {job}")
        if self._by_token.setdefault(token, job) != job:
            self._world.violated(f"{token} led to job {self._by_token[token]} and to job {job}")
        if job not in self._disk.content.rows:
            self._world.violated(f"job {job} was accepted before it was durable")
        self._referee.accepted.update(jobs)

    def _request(self, request: rq.AnyRequest) -> None:
        async def send(service: Service) -> None:
            try:
                await service.answer(request)
            except TopodError as error:
                self._world.say(f"user: {type(request).__name__} refused: {error.message}")

        self._ask(send)

    def _some_job(self) -> int | None:
        jobs = sorted(self._disk.content.rows)
        return self._rng.choice(jobs[-6:]) if jobs else None

    def cancel(self) -> None:
        launching = [job.id for job in self._disk.content.state.jobs.values() if job.stage is Stage.LAUNCHING]
        job = self._rng.choice(launching) if launching else self._some_job()
        if job is not None:
            self._referee.cancelled.add(JobId(job))
            self._request(rq.Cancel(jobs=[job], by="alice"))

    def requeue(self) -> None:
        """Have a running job queued again; one in three times any job, running or not."""
        running = [job.id for job in self._disk.content.state.jobs.values() if job.state is JobState.RUNNING]
        anyone = not running or self._rng.random() < 0.3
        job = self._some_job() if anyone else self._rng.choice(sorted(running))
        if job is not None:
            self._referee.requeued.add(JobId(job))
            self._request(rq.Requeue(jobs=[job], by="alice"))

    def change_priority(self) -> None:
        if (job := self._some_job()) is not None:
            self._request(rq.SetPriority(job=job, priority=self._rng.choice((50, 100, 500, 1000, 2000))))

    def drain(self) -> None:
        gpu = self._rng.choice((None, *[str(gpu.index) for gpu in self._tables.topology.gpus]))
        self._request(rq.Drain(gpu=gpu, reason="maintenance"))
        self._world.after(self._rng.uniform(5.0, 60.0), lambda: self._request(rq.Resume(gpu=gpu)))

    def rebalance(self) -> None:
        """Ask for the moves that would make the most GPUs whole, and sometimes for moves that are stale."""
        state, affinity = self._disk.content.state, self._rng.choice((Affinity.NVLINK, Affinity.NUMA))
        _, found = find_moves(self._tables, state, Goal(affinity=affinity), self._world.wall, NO_RULES)
        moves = tuple(new_place(self._tables, state, move) for move in found.moves)
        running = [job for _, job in sorted(state.jobs.items()) if job.allocation is not None]
        if running and self._rng.random() < 0.5:
            moves = (self._any_move(self._rng.choice(running)),)
        generation = self._rng.choice((None, state.generation))
        if moves:
            self._tell(ev.MovesRequested(moves=moves, by="alice", generation=generation))

    def _any_move(self, job: Job) -> tuple[JobId, Allocation]:
        """Return a move to GPUs that may be taken: topod is to refuse it where they are."""
        topology, held = self._tables.topology, job.allocation or Allocation()
        gpus = sorted(self._rng.sample(topology.gpus, len(held.gpus)), key=lambda gpu: gpu.index)
        return job.id, Allocation(
            gpus=tuple(gpu.uuid for gpu in gpus),
            gpu_indices=tuple(gpu.index for gpu in gpus),
            cpus=held.cpus,
            memory_nodes=held.memory_nodes,
        )

    def look(self) -> None:
        self._request(rq.GetHost())
        self._request(rq.ListJobs())

    def put_in_order(self) -> None:
        """Undo whatever keeps GPUs back, as an administrator does after a bad day."""
        self._request(rq.Resume(gpu=None))
        for gpu in self._tables.topology.gpus:
            self._request(rq.Resume(gpu=str(gpu.index)))

    def fleet_job(self) -> JobSpec:
        """Return what users of a fleet have run."""
        on = self._world.chance.on
        return random_job(self._rng, self._tables, deaf=on["box.deaf"], late=on["box.exits_late"])

    def act(self) -> None:
        """Do one thing."""
        act = self._rng.choice(
            (self.submit,) * 7
            + (self.cancel, self.requeue, self.change_priority, self.drain, self.look, self.rebalance)
        )
        act()

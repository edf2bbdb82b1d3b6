"""One day on one host: a storm of faults while users work, then calm, in which everything must come to rest.

The daemon is the real one (`topod.daemon.assembly`), run on virtual time over a pretended world; it may be
killed after any of its callbacks and is started again, as systemd does.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import cache, partial
from math import inf
from typing import Any, Final

import pytest

from tests.oracles.random_hosts import make_host
from tests.simulation.chance import TIMED, Chance, World, WorldClock
from tests.simulation.devices import Devices
from tests.simulation.disk import Disk
from tests.simulation.engine import Engine, SimRuntime
from tests.simulation.fair import random_rules
from tests.simulation.fleet import Coordinator
from tests.simulation.loop import VirtualLoop
from tests.simulation.minimal import too_many
from tests.simulation.referee import Referee
from tests.simulation.users import Users
from topod.daemon import mailbox
from topod.daemon.assembly import Daemon, Ports
from topod.daemon.fleet_link import FleetLink, HostSide
from topod.daemon.fleet_orders import Judge
from topod.daemon.gpu_watch import GpuWatch
from topod.daemon.lease import LeaseWatch
from topod.daemon.owners import Owners
from topod.daemon.service import Identity, Service
from topod.discovery.library import load_library_host
from topod.flextopo.tables import TopologyTables
from topod.health.assessor import Assessor
from topod.health.rules import HealthRules
from topod.lifecycle import events as ev
from topod.lifecycle.machine import step_all
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import HostState, JobState, Stage
from topod.model.container import ContainerStatus
from topod.model.cpuset import CpuSet
from topod.model.job import JobId, JobSpec
from topod.model.rules import Rules
from topod.shell.vetting import PolicyError

STORM_SECONDS: Final = 240.0
CALM_SECONDS: Final = 6 * 3600.0
USER_ACTS: Final = 20
STEP_SECONDS: Final = (0.0,) * 18 + (0.005, 0.2)
"""How long the core thinks: on a host with thousands of jobs it takes its time."""
LOOK_AT_GPUS_SECONDS: Final = 20.0
FLEET_ACTS: Final = 12
HEARTBEAT_SECONDS: Final = 8.0
LOOK_SECONDS: Final = 30.0
"""How often the referee asks in the calm whether everything is at rest."""


@cache
def hosts() -> tuple[TopologyTables, ...]:
    """Return the hosts that days are played on: small ones, where jobs get in each other's way."""
    pairs = {(0, 1): 4, (2, 3): 4}
    topologies = [
        make_host(nodes=[0, 0, 1, 1], nvlinks=pairs, cpus_per_node=8),
        make_host(nodes=[0, 0], nvlinks={}, cpus_per_node=6, threads=1, group=3),
        make_host(nodes=[0, 0, 0, 1], nvlinks={(0, 1): 2, (1, 2): 2, (0, 2): 2}, cpus_per_node=8),
        load_library_host("a100-pcie-x4").topology,
    ]
    return tuple(TopologyTables(topology) for topology in topologies)


class Day:
    """A day that the seed decides. `run` returns the violations, none on a good day."""

    def __init__(self, seed: int, *, keep_trace: bool = False) -> None:
        self.chance = Chance(seed, keep_trace=keep_trace)
        self.world = World(self.chance)
        self.rng = self.chance.rng
        self.tables = self.rng.choice(hosts())
        self.engine = Engine(self.world)
        self.devices = Devices(self.world, self.engine, self.tables.topology)
        self.disk = Disk(self.world)
        self.rules = random_rules(self.chance)
        self.referee = Referee(self.world, self.tables, self.rules, disk=self.disk, engine=self.engine)
        self.disk.referee = self.referee
        self.users = Users(self.world, self.tables, self.disk, self.referee, ask=self._ask, tell=self._tell)
        self.runtime = SimRuntime(self.engine, self.referee)
        self.engine.kill_daemon = self._killed_starting
        self._forbidden: frozenset[str] = frozenset()
        """Whose jobs the policy forbids."""
        self._link: FleetLink | None = None
        self._lease: LeaseWatch | None = None
        self.lives = 0
        self.steps = 0
        self._loop: VirtualLoop | None = None
        self._daemon: Daemon | None = None
        self._watch: GpuWatch | None = None
        self._requeue = self.rng.random() < 0.5
        self._tasks: list[asyncio.Task[None]] = []
        """What the loop must not lose while it runs."""
        self._steps_left: int | None = None
        self._at_rest = False
        self._looks = 0
        self._alive_since = inf
        """Since when a daemon lives."""
        self.fleet: Coordinator | None = None
        if self.chance.in_fleet:
            self.fleet = Coordinator(self.world, self.tables, self.users.fleet_job)
        self.referee.fleet = self.fleet

    def run(self) -> list[str]:
        """Live through the day; return what happened that must never happen."""
        watcher = _ErrorLog(self.world)
        log = logging.getLogger("topod")
        before = log.level, log.propagate
        log.addHandler(watcher)
        log.setLevel(logging.DEBUG if self.chance.keeps_trace else logging.ERROR)
        log.propagate = False
        monkey = pytest.MonkeyPatch()
        monkey.setattr(mailbox, "step_all", self._step)
        try:
            self._plan()
            while not self._at_rest and not self.world.violations:
                self._live()
        finally:
            monkey.undo()
            log.removeHandler(watcher)
            log.setLevel(before[0])
            log.propagate = before[1]
        if not self.world.violations:
            self.referee.check_ends({ident: self._job(ident) for ident in self.disk.content.rows})
        return self.world.violations

    def _step(
        self,
        tables: TopologyTables,
        state: HostState,
        events: Sequence[ev.Event],
        now: float,
        rules: Rules,
        *,
        queue: bool,
    ) -> tuple[Outcome, tuple[tuple[JobId, ...], ...]]:
        """Run the core; nothing it says escapes the referee."""
        outcome, made = step_all(tables, state, events, now, rules, queue=queue)
        if not all(isinstance(event, ev.Tick) for event in events):
            self.world.say(f"events {', '.join(type(event).__name__ for event in events)}")
        if wrong := too_many(tables, rules, state, events, after=outcome.state, now=now):
            self.world.violated(wrong)
        if queue:
            self.referee.stepped(outcome, now)
        for job in outcome.changed:
            doubt = job.state is JobState.STOPPING and job.stage is Stage.LAUNCHING
            if doubt and self.chance.strikes("daemon.killed_in_doubt"):
                self._daemon_killed()
        self.world.now += self.rng.choice(STEP_SECONDS)
        return outcome, made

    def _job(self, ident: int) -> Any:
        return self.disk.job(ident)

    # --- the order of the day -------------------------------------------------------------------------------

    def _plan(self) -> None:
        at = self.world.after
        for _ in range(USER_ACTS):
            at(self.rng.uniform(0.0, STORM_SECONDS * 0.8), self.users.act)
        if self.fleet is not None:
            for seconds in range(0, round(STORM_SECONDS), 10):
                at(seconds, self._look_at_lease)
            for _ in range(FLEET_ACTS):
                at(self.rng.uniform(0.0, STORM_SECONDS * 0.8), self.fleet.act)
        for fault, mean in TIMED.items():
            if self.chance.on[fault]:
                strike = getattr(self, "_" + fault.replace(".", "_"))
                for _ in range(self.rng.choice((1, 1, 2)) if self.rng.random() < mean else 0):
                    at(self.rng.uniform(0.0, STORM_SECONDS), partial(self._strike, fault, strike))
        at(STORM_SECONDS, self._calm)

    def _look_at_lease(self) -> None:
        self.referee.look_at_lease(self._alive_since)

    def _strike(self, fault: str, strike: Callable[[], bool | None]) -> None:
        if self.chance.storm and strike() is not False:
            self.chance.happened[fault] += 1
            self.world.say(f"fault {fault}")

    def _calm(self) -> None:
        self.world.say("calm")
        self.chance.storm = False
        now = self.world.now
        self.engine.frozen_until = min(self.engine.frozen_until, now)
        self.disk.full_until = self.disk.read_only_until = now
        self.devices.recover()
        if self.fleet is not None:
            self.fleet.heal()
        self._look()

    def _look(self) -> None:
        """Look whether everything is at rest; if it never will be, say so."""
        if self._looks % 10 == 0:
            self.users.put_in_order()
        self._looks += 1
        self._tell(ev.ForeignCpusSeen(cpus=()))
        self._look_at_lease()
        jobs = self.disk.content.state.jobs
        if not jobs and not self.engine.boxes and self._daemon is not None:
            self._at_rest = True
        elif self.world.now > STORM_SECONDS + CALM_SECONDS:
            self._at_rest = True  # the referee tells what did not end
        else:
            self.world.after(LOOK_SECONDS, self._look)

    # --- the daemon -----------------------------------------------------------------------------------------

    def _live(self) -> None:
        """Start the daemon and let it live until it is killed, stopped, or the day is over."""
        if self.disk.broken and self.rng.random() < 0.5:
            self.world.pass_until(self.world.now + 1.0)
            return
        self.lives += 1
        self.world.say(f"topod starts, life {self.lives}")
        loop = self._loop = VirtualLoop(self.world, self._each_step)
        clock = WorldClock(self.world)
        identity = Identity(state_dir="", events_endpoint="", notes=(), started_at=clock.now())
        ports = Ports(
            tables=self.tables, runtime=self.runtime, probe=self.devices, store=self.disk, clock=clock
        )
        if self.lives > 1 and self.chance.strikes("policy.stricter"):
            self._forbidden = frozenset({self.rng.choice(("alice", "bob"))})
        daemon = Daemon(ports, self.disk.load(), identity, rules=self.rules, vet=self._vet)
        self._watch = GpuWatch(
            self.devices,
            daemon.mailbox,
            Owners(self.runtime, self.devices.identify),
            Assessor(self.tables.topology, HealthRules(requeue=self._requeue)),
            clock=clock,
            health=daemon.health,
            every_seconds=LOOK_AT_GPUS_SECONDS,
            seen_first=lambda: None,
        )

        if self.fleet is not None:
            self._join(daemon, ports, self.fleet)

        async def begin() -> None:
            if self._lease is not None:
                await self._lease.begin()
            assert self._watch is not None
            daemon.start(publish=lambda _: None)
            self._watch.start()
            if self._lease is not None and self._link is not None:
                self._lease.start()
                self._link.start()
            self._daemon = daemon
            self._alive_since = self.world.now

        self._begin(begin())
        try:
            loop.run_forever()
        finally:
            self.world.say("topod is gone")
            self._daemon, self._loop, self._steps_left = None, None, None
            self._link, self._lease, self._alive_since = None, None, inf
            self.engine.watch(None)
            loop.kill()
            self._tasks.clear()
            self.disk.daemon_died()
        if not self._at_rest:
            self.world.pass_until(self.world.now + self.rng.choice((0.1, 1.0, 20.0)))

    def _vet(self, spec: JobSpec) -> JobSpec:
        if spec.user in self._forbidden:
            raise PolicyError(f"not allowed by this host's policy: user {spec.user}")
        return spec

    def _join(self, daemon: Daemon, ports: Ports, fleet: Coordinator) -> None:
        lease = fleet.lease()
        side = HostSide(
            mailbox=daemon.mailbox,
            tables=self.tables,
            clock=ports.clock,
            health=daemon.health,
            memory=fleet,
            answer=daemon.service.answer,
            judge=Judge(tables=self.tables, runtime="docker", rules=lambda: self.rules),
            rules=lambda: self.rules,
        )
        self._link = FleetLink(
            side, fleet.wire(), lease, heartbeat_seconds=HEARTBEAT_SECONDS, now=fleet.steady
        )
        self._lease = LeaseWatch(lease, daemon.mailbox.post, fleet.steady)

    def _each_step(self) -> None:
        self.steps += 1
        if self._steps_left is not None:
            self._steps_left -= 1
        if (self._at_rest or self.world.violations or self._steps_left == 0) and self._loop is not None:
            self._loop.stop()

    def _ask(self, request: Callable[[Service], Coroutine[Any, Any, None]]) -> None:
        if self._loop is not None and self._daemon is not None:
            self._begin(request(self._daemon.service))

    def _tell(self, event: ev.Event) -> None:
        if self._daemon is not None:
            self._begin(self._daemon.mailbox.post(event))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        self._tasks.append(self._loop.create_task(work))

    # --- faults that come at a time of their own -----------------------------------------------------------------

    def _daemon_killed(self) -> bool | None:
        if self._loop is None:
            return False
        self._steps_left = self.rng.randint(1, 60)
        return None

    def _killed_starting(self) -> None:
        self._daemon_killed()

    def _daemon_stopped(self) -> bool | None:
        daemon, watch = self._daemon, self._watch
        if daemon is None or watch is None:
            return False

        async def stop() -> None:
            if self._link is not None and self._lease is not None:
                await self._link.stop()
                await self._lease.stop()
            await watch.stop()
            await daemon.stop()
            self._steps_left = 1

        self._begin(stop())
        return None

    def _link_cut(self) -> bool | None:
        if self.fleet is None:
            return False
        self.fleet.cut()
        return None

    def _coordinator_restarted(self) -> bool | None:
        if self.fleet is None:
            return False
        self.fleet.start_anew()
        return None

    def _engine_frozen(self) -> None:
        self.engine.frozen_until = self.world.now + self.rng.choice((1.0, 20.0, 60.0))

    def _engine_restarted(self) -> None:
        self.engine.restart(killing=False, forgetting=False, seconds=self.rng.choice((0.5, 10.0)))

    def _engine_restarted_killing(self) -> None:
        self.engine.restart(killing=True, forgetting=False, seconds=self.rng.choice((0.5, 10.0)))

    def _engine_restarted_forgetting(self) -> None:
        self.engine.restart(killing=True, forgetting=True, seconds=self.rng.choice((0.5, 10.0)))

    def _image_removed(self) -> bool | None:
        here = [image for image, there in self.engine.images.items() if there]
        if not here:
            return False
        self.engine.images[self.rng.choice(here)] = False
        return None

    def _box_vanishes(self) -> bool | None:
        return self._meddle(ContainerStatus.RUNNING, self.engine.vanish)

    def _box_stopped_by_hand(self) -> bool | None:
        def stop(box: Any) -> None:
            box.meddled = True
            self.engine.end(box, self.rng.choice((0, 137, 143)))

        return self._meddle(ContainerStatus.RUNNING, stop)

    def _box_removed_unstarted(self) -> bool | None:
        return self._meddle(ContainerStatus.CREATED, self.engine.vanish)

    def _meddle(self, status: ContainerStatus, act: Callable[[Any], None]) -> bool | None:
        boxes = [box for box in self.engine.boxes.values() if box.status is status and not box.stuck]
        if not boxes:
            return False
        act(self.rng.choice(boxes))
        return None

    def _some_gpu(self) -> str:
        return self.rng.choice(self.tables.topology.gpus).uuid

    def _gpu_xid(self) -> None:
        self.devices.raise_xid(self._some_gpu(), self.rng.choice((31, 79, 94, 95)))

    def _gpu_lost(self) -> None:
        self.devices.lost[self._some_gpu()] = self.world.now + self.rng.uniform(5.0, 100.0)

    def _gpu_errors(self) -> None:
        self.devices.errors[self._some_gpu()] = self.rng.randint(1, 3)

    def _cpu_foreign(self) -> bool | None:
        if self._daemon is None:
            return False
        some = str(CpuSet.of(self.rng.sample(sorted(self.tables.topology.cpus), 2)))
        self._tell(ev.ForeignCpusSeen(cpus=((some, "pid 4711 (python, mallory)"),)))
        return None

    def _gpu_foreign(self) -> None:
        self.devices.foreign[self._some_gpu()] = self.world.now + self.rng.uniform(5.0, 100.0)

    def _nvml_dead(self) -> None:
        self.devices.dead_until = self.world.now + self.rng.uniform(5.0, 60.0)

    def _disk_full(self) -> None:
        self.disk.full_until = self.world.now + self.rng.choice((0.5, 10.0, 40.0))

    def _disk_read_only(self) -> None:
        self.disk.read_only_until = self.world.now + self.rng.choice((0.5, 10.0, 40.0))

    def _clock_forward(self) -> None:
        self.world.clock_offset += self.rng.choice((5.0, 100.0, 3600.0))

    def _clock_back(self) -> None:
        self.world.clock_offset -= self.rng.choice((5.0, 100.0, 3600.0))


class _ErrorLog(logging.Handler):
    """A traceback in the daemon's log is a defect, unless it was planted."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if record.levelno >= logging.ERROR and "planted" not in str(error):
            self._world.violated(f"topod logs {record.getMessage()}: {error!r}")
        elif record.levelno < logging.ERROR:
            words = {
                k: v for k, v in vars(record).items() if k in ("error", "effect", "event", "retry_seconds")
            }
            self._world.say(f"log {record.getMessage()} {words or ''}")

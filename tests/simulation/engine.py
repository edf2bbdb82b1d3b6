"""A container engine in a box, with everything that goes wrong with one.

Every call may fail, hang until its caller gives up, be carried out although nobody hears of it, or long after
the caller gave up. Containers and images outlive the daemon and the engine.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from tests.simulation.chance import World
from tests.simulation.frost import freeze, restore
from tests.simulation.loop import LaterError
from topod.errors import JobRejectedError, RuntimeUnavailableError
from topod.model.container import ContainerStatus, Exit, Observed, Signal
from topod.model.job import Allocation, JobId, JobSpec
from topod.ports import Execution, ImageMissingError

if TYPE_CHECKING:
    from tests.simulation.referee import Referee

QUICK_SECONDS: Final = 15.0
SLOW_SECONDS: Final = 120.0
PULL_SECONDS: Final = 300.0
T = TypeVar("T")


@dataclass
class Box:
    """One container. `program` is what its command does: seconds, exit code, how it takes SIGTERM."""

    job: JobId
    attempt: int
    handle: str
    spec: JobSpec
    allocation: Allocation
    pid: int = 0
    status: ContainerStatus = ContainerStatus.CREATED
    exit_code: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    starts: int = 0
    life: int = 0
    """Counts up when it is started, and when it is restored."""
    checkpoint: tuple[str, float | None] | None = None
    """Its name, and when the life that it holds had begun."""
    left: float = 0.0
    """What its program still has to run, when the present life began."""
    began: float = 0.0
    told: list[tuple[Signal, float]] = field(default_factory=list)
    starting_until: float = 0.0
    """Until then the engine is busy with its start, and whoever wants to remove it waits."""
    stuck: bool = False
    meddled: bool = False
    """Somebody else than topod, or its own program, ended it."""
    ended_well: bool = False
    """Its program came to its end by itself."""

    @property
    def lives(self) -> bool:
        return self.status is ContainerStatus.RUNNING


def exit_of(box: Box) -> Exit:
    code, began = box.exit_code, box.started_at
    return Exit(job=box.job, attempt=box.attempt, handle=box.handle, exit_code=code, started_at=began)


class Engine:
    """The engine, its containers and its images."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = world.chance
        self.boxes: dict[str, Box] = {}
        self.past: list[Box] = []
        """Every container that there ever was, in the order made."""
        self.images: dict[str, bool] = {}
        self.seen: set[str] = set()
        """Images that topod has found local, which it may remember."""
        self.memory_left: dict[str, float] = {}
        """GPU UUID to the moment until which a dead container's memory stays on it."""
        self.frozen_until = 0.0
        self.down_until = 0.0
        self.referee: Referee | None = None
        self._on_exit: Callable[[Exit], None] | None = None
        self.kill_daemon: Callable[[], None] = lambda: None

    # --- containers ---------------------------------------------------------------------------------------

    def live(self) -> list[Box]:
        return [box for box in self.boxes.values() if box.lives]

    def end(self, box: Box, code: int) -> None:
        """The container's last process ends."""
        if not box.lives:
            return
        box.status, box.exit_code, box.ended_at = ContainerStatus.EXITED, code, self.world.wall
        self.world.say(f"container {box.handle} ends with {code}")
        for uuid in box.allocation.gpus:
            if self.chance.strikes("gpu.memory_left"):
                self.memory_left[uuid] = self.world.now + self.chance.rng.uniform(0.0, 90.0)
        if self.chance.strikes("watch.loses"):
            return
        told = exit_of(box)
        self._tell(told)
        if self.chance.strikes("watch.repeats"):
            self.world.after(self.chance.rng.uniform(0.0, 30.0), lambda: self._tell(told))

    def _tell(self, told: Exit) -> None:
        def tell() -> None:
            if self._on_exit is not None:
                self._on_exit(told)

        self.world.after(self.chance.rng.choice((0.0, 0.01, 0.5)), tell)

    def vanish(self, box: Box) -> None:
        """Somebody removes the container by force."""
        box.meddled = True
        if box.lives:
            box.status, box.ended_at = ContainerStatus.EXITED, self.world.wall
        self.boxes.pop(box.handle, None)

    def restart(self, *, killing: bool, forgetting: bool, seconds: float) -> None:
        """The engine ends and comes back, its containers with it or not."""
        self.down_until = self.world.now + seconds
        for box in list(self.boxes.values()):
            if killing and box.lives:
                box.meddled = True
                self.end(box, 137)
            if forgetting:
                self.vanish(box)

        def back() -> None:
            # A watcher that connects anew hears of everything that has ended, or (a busy engine) of nothing.
            if self.chance.rng.random() < 0.7:
                self.replay()

        self.world.after(seconds + 0.5, back)

    def replay(self) -> None:
        for box in self.boxes.values():
            if box.status is ContainerStatus.EXITED:
                self._tell(exit_of(box))

    def watch(self, on_exit: Callable[[Exit], None] | None) -> None:
        self._on_exit = on_exit

    # --- calls --------------------------------------------------------------------------------------------

    def call(self, what: str, patience: float, act: Callable[[], T]) -> T:
        """Carry out one call, as well as a bad day allows. Raises `RuntimeUnavailableError`."""
        world, chance = self.world, self.chance
        world.say(f"call {what}")
        if world.now < self.down_until:
            world.takes = 0.01
            raise RuntimeUnavailableError("the engine cannot be reached: connection refused")
        if world.now < self.frozen_until:
            left = self.frozen_until - world.now + chance.rng.uniform(0.0, 0.5)
            if left < patience:
                raise LaterError(left, act)
            self._later(left, act, what)
            raise self.timed_out(what, patience)
        if chance.strikes("engine.fails"):
            raise RuntimeUnavailableError(f"{what}: the engine answers 500")
        if chance.strikes("engine.times_out"):
            raise self.timed_out(what, patience)
        if chance.strikes("engine.late"):
            self._later(patience * chance.rng.uniform(1.0, 2.0), act, what)
            raise self.timed_out(what, patience)
        if chance.strikes("engine.unheard"):
            act()
            raise self.timed_out(what, patience)
        if chance.strikes("engine.defect"):
            raise ZeroDivisionError("planted")
        return act()

    def timed_out(self, what: str, patience: float) -> RuntimeUnavailableError:
        self.world.takes = patience
        return RuntimeUnavailableError(f"{what}: no answer within {patience:g} seconds")

    def _later(self, seconds: float, act: Callable[[], object], what: str) -> None:
        def late() -> None:
            self.world.say(f"late: {what}")
            try:
                act()
            except (RuntimeUnavailableError, JobRejectedError, ImageMissingError, LaterError):
                self.world.say(f"late: {what} comes to nothing")

        self.world.after(seconds, late)


class SimRuntime:
    """`ContainerRuntime` for one life of the daemon."""

    name = "docker"
    engine_url = ""

    def __init__(self, engine: Engine, referee: "Referee") -> None:
        self._engine = engine
        self._chance = engine.chance
        self._world = engine.world
        self._referee = referee

    def describe(self) -> str:
        return "docker, simulated"

    def ensure_image(self, spec: JobSpec) -> None:
        image = str(spec.image)
        if self._engine.images.get(image):
            self._engine.seen.add(image)
            return
        if image.startswith("never") or self._chance.strikes("image.unknown"):
            raise JobRejectedError(f"image {image} cannot be pulled: manifest unknown")

        def pull() -> None:
            if self._chance.strikes("image.away"):
                raise RuntimeUnavailableError(f"pulling image {image}: connection reset by peer")
            self._engine.images[image] = True

        seconds = self._chance.rng.choice((0.1, 1.0, 10.0))

        def begin() -> None:
            raise LaterError(seconds, pull)

        self._engine.call(f"pull {image}", PULL_SECONDS, begin)

    def image_seen(self, spec: JobSpec) -> bool:
        return str(spec.image) in self._engine.seen

    def create(self, job: JobId, attempt: int, spec: JobSpec, allocation: Allocation) -> str:
        handle = f"topod-{job}-{attempt}"
        self._referee.asks_create(job, attempt, allocation)

        def act() -> str:
            if not self._engine.images.get(str(spec.image)):
                raise ImageMissingError(f"No such image: {spec.image}")
            if self._chance.strikes("create.rejected"):
                raise JobRejectedError(f"creating {handle}: bad mount")
            if handle not in self._engine.boxes:
                box = Box(job, attempt, handle, spec, allocation, pid=len(self._engine.past) + 1)
                self._engine.boxes[handle] = box
                self._engine.past.append(box)
            return handle

        return self._engine.call(f"create {handle}", SLOW_SECONDS, act)

    def start(self, handle: str, checkpoint: str | None = None) -> float:
        self._referee.asks_start(handle)

        def act() -> float:
            box = self._engine.boxes.get(handle)
            if box is None:
                raise JobRejectedError(f"container {handle} was removed by someone before it was started")
            if checkpoint is not None:
                if restore(self._engine, box, checkpoint):
                    self._begin(box)
            elif box.status is ContainerStatus.CREATED:
                if self._chance.strikes("start.rejected"):
                    raise JobRejectedError(f"starting {handle}: no such device")
                box.starts, box.left = box.starts + 1, float(box.spec.command[1])
                self._begin(box)
            assert box.started_at is not None
            return box.started_at

        def slowly() -> float:
            seconds = self._chance.rng.uniform(1.0, 100.0)
            if (box := self._engine.boxes.get(handle)) is not None:
                box.starting_until = self._world.now + seconds
                if self._chance.strikes("daemon.killed_starting"):
                    self._world.after(self._chance.rng.uniform(0.0, seconds), self._engine.kill_daemon)
            raise LaterError(seconds, act)

        slow = self._chance.strikes("start.slow")
        return self._engine.call(f"start {handle}", SLOW_SECONDS, slowly if slow else act)

    def _begin(self, box: Box) -> None:
        box.status, box.started_at, box.began = ContainerStatus.RUNNING, self._world.wall, self._world.now
        box.life += 1
        self._world.say(f"container {box.handle} runs")
        self._referee.container_started(box)

        def done() -> None:
            if not box.stuck:
                box.ended_well = True
                self._engine.end(box, int(box.spec.command[2]))

        self._while_it_lives(box, box.left, done)

    def _while_it_lives(self, box: Box, seconds: float, act: Callable[[], None]) -> None:
        """Let something happen to the present life of a box, if it lasts so long."""
        life = box.life
        self._world.after(seconds, lambda: act() if box.lives and box.life == life else None)

    def signal(self, handle: str, signal: Signal) -> None:
        self._referee.asks_signal(handle, signal)

        def act() -> None:
            box = self._engine.boxes.get(handle)
            if box is None or not box.lives:
                return
            self._referee.container_signalled(box, signal)
            box.told.append((signal, self._world.now))
            if signal is Signal.KILL:
                self._killed(box)
            elif signal is Signal.TERM:
                self._terminated(box)
            else:
                self._saves(box)

        try:
            self._engine.call(f"{signal.value} to {handle}", QUICK_SECONDS, act)
        except ZeroDivisionError:
            # A signal that a defect swallows counts as given: there is no second try.
            if (box := self._engine.boxes.get(handle)) is not None:
                box.told.append((signal, self._world.now))
            raise

    def _killed(self, box: Box) -> None:
        if box.stuck:
            return
        seconds = self._chance.rng.uniform(0.0, 0.2)
        if self._chance.strikes("box.stuck"):
            box.stuck, seconds = True, self._chance.rng.uniform(10.0, 200.0)
        self._while_it_lives(box, seconds, lambda: self._engine.end(box, 137))

    def _saves(self, box: Box) -> None:
        """The program saves its work and ends by itself, in time or not, or has never heard of this signal."""
        if not box.stuck and box.spec.command[3] == "quick":
            seconds = self._chance.rng.uniform(0.0, 8.0)
            self._while_it_lives(box, seconds, lambda: None if box.stuck else self._engine.end(box, 0))

    def _terminated(self, box: Box) -> None:
        manner, rng = box.spec.command[3], self._chance.rng
        if box.stuck or manner == "deaf":
            return
        seconds = rng.uniform(0.0, 0.3) if manner == "quick" else rng.uniform(0.0, 2 * box.spec.grace_seconds)
        self._while_it_lives(box, seconds, lambda: None if box.stuck else self._engine.end(box, 143))

    def run_hook(
        self, handle: str, command: tuple[str, ...], timeout_seconds: float
    ) -> tuple[int | None, str]:
        def act() -> tuple[int | None, str]:
            box = self._engine.boxes.get(handle)
            if box is None or not box.lives:
                raise JobRejectedError(f"container {handle} is not running")
            if self._chance.strikes("hook.times_out"):
                raise LaterError(timeout_seconds, lambda: (None, ""))
            if self._chance.strikes("hook.fails"):
                return 1, "no space left"
            raise LaterError(self._chance.rng.uniform(0.0, timeout_seconds), lambda: (0, "saved"))

        return self._engine.call(f"hook in {handle}", timeout_seconds + QUICK_SECONDS, act)

    def execute(self, handle: str, command: tuple[str, ...], *, stdin: bool) -> Execution:
        raise AssertionError("nobody asks for it here")

    def freeze(self, handle: str, name: str, timeout_seconds: float) -> float | None:
        self._referee.asks_freeze(handle)

        def act() -> float | None:
            return freeze(self._engine, handle, name, timeout_seconds)

        return self._engine.call(f"freeze {handle}", timeout_seconds, act)

    def observe(self) -> tuple[Observed, ...]:
        def act() -> tuple[Observed, ...]:
            return tuple(
                Observed(
                    job=box.job,
                    attempt=box.attempt,
                    handle=box.handle,
                    status=box.status,
                    exit_code=box.exit_code,
                    started_at=box.started_at,
                    ended_at=box.ended_at,
                )
                for box in self._engine.boxes.values()
            )

        return self._engine.call("observe", QUICK_SECONDS, act)

    def watch(self, on_exit: Callable[[Exit], None]) -> None:
        self._engine.watch(on_exit)
        self._engine.replay()

    def log_path(self, job: JobId, attempt: int) -> Path:
        return Path(f"/nowhere/{job}.{attempt}.log")

    def remove(self, handle: str) -> None:
        self._referee.asks_remove(handle)

        def act() -> None:
            box = self._engine.boxes.get(handle)
            if box is None:
                return
            if self._world.now < box.starting_until:
                raise LaterError(box.starting_until - self._world.now + 0.01, act)
            if box.lives:
                self._killed(box)
                if box.stuck:
                    self._world.takes = SLOW_SECONDS
                    raise RuntimeUnavailableError(f"killing {handle}: no answer in time")
                self._engine.end(box, 137)
            if self._chance.strikes("remove.rejected"):
                raise JobRejectedError(f"removing {handle}: device or resource busy")
            self._engine.boxes.pop(handle, None)

        self._engine.call(f"remove {handle}", SLOW_SECONDS, act)

    def pids(self, handle: str) -> tuple[int, ...]:
        def act() -> tuple[int, ...]:
            box = self._engine.boxes.get(handle)
            return (box.pid,) if box is not None and box.lives else ()

        what = f"pids of {handle}"
        if self._world.now < self._engine.frozen_until:
            # Asked in the middle of other work: nothing of that could be done later.
            raise self._engine.timed_out(what, QUICK_SECONDS)
        return self._engine.call(what, QUICK_SECONDS, act)

    def close(self) -> None:
        self._engine.watch(None)

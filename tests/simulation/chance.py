"""One seed decides everything: which faults a day has, when each strikes, how long every call takes."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

EPOCH: Final = 1_700_000_000.0
"""Wall-clock time at the beginning of a day."""

RATES: Final[dict[str, float]] = {
    # Calls of the engine.
    "engine.fails": 0.04,
    "engine.times_out": 0.02,
    "engine.late": 0.02,
    "engine.unheard": 0.03,
    "engine.defect": 0.004,
    "create.rejected": 0.02,
    "start.rejected": 0.02,
    "start.slow": 0.25,
    "remove.rejected": 0.03,
    "image.away": 0.3,
    "image.unknown": 0.04,
    "hook.fails": 0.35,
    "hook.times_out": 0.35,
    "freeze.fails": 0.15,
    "freeze.times_out": 0.15,
    "restore.rejected": 0.4,
    "checkpoint.gone": 0.7,
    # Containers.
    "box.deaf": 0.2,
    "box.exits_late": 0.2,
    "box.stuck": 0.25,
    "watch.loses": 0.15,
    "watch.repeats": 0.15,
    # GPUs.
    "gpu.memory_left": 0.15,
    "nvml.slow": 0.05,
    # The disk.
    "disk.unsure": 0.01,
    # topod, where a job is told to stop whose start is on its way.
    "daemon.killed_in_doubt": 0.5,
    # topod, while the engine takes its time to start a container; and the policy that it finds on its return.
    "daemon.killed_starting": 0.3,
    "policy.stricter": 0.6,
    # The line to the coordinator.
    "link.loses": 0.15,
    "link.slow": 0.1,
    "link.repeats": 0.1,
}
"""How likely a fault strikes where it can; a day has about half of them."""

RARE: Final = (
    "hook.fails",
    "hook.times_out",
    "freeze.fails",
    "freeze.times_out",
    "restore.rejected",
    "checkpoint.gone",
    "box.stuck",
)
"""Few days come to a place where one of these can strike: nearly all days have them."""

TIMED: Final[dict[str, float]] = {
    "engine.frozen": 1.0,
    "engine.restarted": 1.0,
    "engine.restarted_killing": 0.7,
    "engine.restarted_forgetting": 0.4,
    "image.removed": 1.0,
    "box.vanishes": 0.8,
    "box.stopped_by_hand": 1.0,
    "box.removed_unstarted": 0.8,
    "gpu.xid": 0.8,
    "gpu.lost": 0.6,
    "gpu.errors": 0.5,
    "gpu.foreign": 1.2,
    "cpu.foreign": 0.6,
    "nvml.dead": 0.8,
    "disk.full": 1.0,
    "disk.read_only": 0.6,
    "clock.forward": 0.7,
    "clock.back": 0.7,
    "daemon.killed": 2.5,
    "daemon.stopped": 0.6,
    "link.cut": 2.0,
    "coordinator.restarted": 0.6,
}
"""How often a fault happens in a day that has it, in the mean."""

FLEET_FAULTS: Final = frozenset(
    {"link.loses", "link.slow", "link.repeats", "link.cut", "coordinator.restarted"}
)
"""Of days on which the host belongs to a fleet ..."""
FLEET_SHARE: Final = 0.25
"""... which so many do."""
START_FAULTS: Final = frozenset({"daemon.killed_starting", "policy.stricter"})
"""Of days on which starts are forbidden that were ordered before ..."""
START_SHARE: Final = 0.4
"""... which so many are."""
ALL_FAULTS: Final = (*RATES, *TIMED)


class Chance:
    """The random numbers of one day, what struck in it, and the trace of everything that happened."""

    def __init__(self, seed: int, *, keep_trace: bool = False) -> None:
        self.rng = random.Random(seed)
        # Numbers of its own: a day without a fleet is the same whatever is asked of fleets.
        fleet = random.Random(f"fleet {seed}")
        self.in_fleet: Final = fleet.random() < FLEET_SHARE
        forbids: Final = random.Random(f"starts {seed}").random() < START_SHARE
        self.on = {
            name: self.in_fleet and fleet.random() < 0.5
            if name in FLEET_FAULTS
            else forbids
            if name in START_FAULTS
            else self.rng.random() < (0.9 if name in RARE else 0.5)
            for name in ALL_FAULTS
        }
        self.storm = True
        """Faults strike only while it lasts."""
        self.happened: Counter[str] = Counter()
        self._hash = hashlib.sha256()
        self.keeps_trace = keep_trace
        self.trace: list[str] = []

    def strikes(self, fault: str) -> bool:
        """Say whether a fault that could happen here does."""
        if not self.storm or not self.on[fault] or self.rng.random() >= RATES[fault]:
            return False
        self.happened[fault] += 1
        return True

    def note(self, line: str) -> None:
        """Add a line to the trace."""
        self._hash.update(line.encode())
        if self.keeps_trace:
            self.trace.append(line)

    @property
    def digest(self) -> str:
        """What the whole trace comes to."""
        return self._hash.hexdigest()


class World:
    """True time and everything that happens by itself; goes on while no daemon runs."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.now = 0.0
        self.clock_offset = 0.0
        self.takes = 0.0
        """How long the blocking call in progress takes; set by whoever carries it out."""
        self.violations: list[str] = []
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    @property
    def wall(self) -> float:
        """What a clock on the wall shows."""
        return EPOCH + self.now + self.clock_offset

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Let something happen in the world so many seconds from now, whatever becomes of the daemon."""
        self._count += 1
        heappush(self._agenda, (self.now + max(0.0, seconds), self._count, act))

    @property
    def due(self) -> float | None:
        """When the next such thing happens."""
        return self._agenda[0][0] if self._agenda else None

    def happen(self) -> None:
        """Let time pass until the next such thing, and let it happen."""
        when, _, act = heappop(self._agenda)
        self.now = max(self.now, when)
        act()

    def pass_until(self, moment: float) -> None:
        """Let time pass with no daemon there."""
        while self._agenda and self._agenda[0][0] <= moment:
            self.happen()
        self.now = max(self.now, moment)

    def say(self, line: str) -> None:
        """Add a line to the trace, with the time."""
        self.chance.note(f"{self.now:11.4f} {line}")

    def violated(self, text: str) -> None:
        """Report that something happened which must never happen; the day ends there."""
        self.say(f"VIOLATED: {text}")
        self.violations.append(text)


class WorldClock:
    """The wall clock that topod reads."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        return self._world.wall

"""From the facts of a period to the numbers of its charts and tables."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from topoctl.render.jobs import priority_name
from topoctl.report.facts import Period, Placement, Preempted, Run, Wait

WIDTHS: Final = (60, 300, 600, 1800, 3600, 10800, 21600, 43200, 86400, 7 * 86400, 28 * 86400)
"""How long a column of a chart over time may be, in seconds."""
COLUMNS_MAX: Final = 100
WAIT_EDGES: Final = (1, 10, 60, 600, 3600, 6 * 3600, 86400)
WAIT_NAMES: Final = ("< 1 s", "1-10 s", "10-60 s", "1-10 min", "10-60 min", "1-6 h", "6-24 h", "> 1 day")
SERIES_MAX: Final = 7
REST: Final = "others"
PHASES: Final = ("decide", "create", "stop", "free", "start", "all")
"""As in the log, and all of them together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How values are spread. `high`: nine of ten are at most that."""

    count: int
    low: float
    middle: float
    high: float
    most: float


def spread(values: Iterable[float]) -> Spread | None:
    """Return how they are spread; None without any."""
    found = sorted(values)
    if not found:
        return None
    high = found[min(len(found) - 1, -(-9 * len(found) // 10) - 1)]
    return Spread(count=len(found), low=found[0], middle=median(found), high=high, most=found[-1])


class Classes:
    """Priorities by name, the lowest first; of very many the least used are one class of their own."""

    def __init__(self, weights: Mapping[int, float]) -> None:
        kept = sorted(weights, key=lambda number: (-weights[number], number))
        single = kept if len(kept) <= SERIES_MAX else kept[: SERIES_MAX - 1]
        self.numbers = sorted(single)
        self.names = [priority_name(number) for number in self.numbers]
        if len(kept) > len(single):
            self.names.append(REST)

    def index(self, priority: int) -> int:
        """Return which class a priority belongs to."""
        return self.numbers.index(priority) if priority in self.numbers else len(self.names) - 1


def classes_of(period: Period, runs: Iterable[Run], waits: Iterable[Wait]) -> Classes:
    """Return the classes of all priorities that occur, weighed by their GPU time."""
    weights: dict[int, float] = defaultdict(float)
    for run in runs:
        weights[run.priority] += run.gpus * period.overlap(run.begin, run.end)
    for wait in waits:
        weights[wait.priority] += 0.0
    return Classes(weights)


def edges(period: Period, offset: float) -> list[float]:
    """Return where the columns of a chart over time begin, and where the last one ends.

    They begin at full minutes, hours or days of a clock that is `offset` seconds ahead of UTC.
    """
    width = next((width for width in WIDTHS if period.seconds / width <= COLUMNS_MAX), WIDTHS[-1])
    begin = period.since - (period.since + offset) % width
    count = max(1, -int(-(period.until - begin) // width))
    return [begin + step * width for step in range(count + 1)]


def usage(period: Period, runs: Iterable[Run], classes: Classes, times: Sequence[float]) -> list[list[float]]:
    """Return for each column how many GPUs of each class were in use on average."""
    seconds = [[0.0] * len(classes.names) for _ in times[1:]]
    for run in runs:
        begin, end = max(run.begin, period.since), min(run.end, period.until)
        at = max(0, bisect_right(times, begin) - 1)
        while at < len(seconds) and times[at] < end:
            shared = min(end, times[at + 1]) - max(begin, times[at])
            seconds[at][classes.index(run.priority)] += max(0.0, shared) * run.gpus
            at += 1
    spans = [period.overlap(begin, end) for begin, end in pairwise(times)]
    return [
        [value / span if span else 0.0 for value in row] for row, span in zip(seconds, spans, strict=True)
    ]


def gpu_hours(period: Period, runs: Iterable[Run], classes: Classes) -> dict[str, list[float]]:
    """Return GPU-hours of each class by user, the largest user first."""
    found: dict[str, list[float]] = {}
    for run in runs:
        row = found.setdefault(run.user, [0.0] * len(classes.names))
        row[classes.index(run.priority)] += run.gpus * period.overlap(run.begin, run.end) / 3600
    return dict(sorted(found.items(), key=lambda one: (-sum(one[1]), one[0])))


def wait_columns(waits: Iterable[Wait], classes: Classes) -> list[list[float]]:
    """Return for each of `WAIT_NAMES` how many jobs of each class waited so long."""
    found = [[0.0] * len(classes.names) for _ in WAIT_NAMES]
    for wait in waits:
        found[bisect_right(WAIT_EDGES, wait.seconds)][classes.index(wait.priority)] += 1
    return found


def wait_spreads(waits: Sequence[Wait], classes: Classes) -> list[Spread | None]:
    """Return for each class how long its jobs waited, in seconds."""
    return [
        spread(wait.seconds for wait in waits if classes.index(wait.priority) == at)
        for at in range(len(classes.names))
    ]


def affinities(
    placements: Iterable[Placement], ladder: Sequence[str]
) -> list[tuple[str, int, dict[str, int]]]:
    """Return for each class that was asked for: its name, how many got it, and what the others got."""
    met: dict[str, int] = defaultdict(int)
    missed: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for one in placements:
        if one.satisfied:
            met[one.asked] += 1
        else:
            missed[one.asked][one.got] += 1
    return [(name, met[name], dict(missed[name])) for name in ladder if name in met or name in missed]


def phase_spreads(preemptions: Sequence[Preempted]) -> dict[str, Spread]:
    """Return for each of `PHASES` that was gone through how long it took, in seconds."""
    found = {name: spread(one.phases[name] for one in preemptions if name in one.phases) for name in PHASES}
    return {name: one for name, one in found.items() if one is not None}


def reasons(preemptions: Iterable[Preempted]) -> dict[str, int]:
    """Return by which cost key how many plans won over the next best one, the most frequent first."""
    found: dict[str, int] = defaultdict(int)
    for one in preemptions:
        found[one.decided_by.partition(":")[0] or "there was no other plan"] += 1
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def preemption_columns(preemptions: Iterable[Preempted], times: Sequence[float]) -> list[list[float]]:
    """Return for each column how many preemptions there were."""
    found = [[0.0] for _ in times[1:]]
    for one in preemptions:
        at = min(max(0, bisect_right(times, one.at) - 1), len(found) - 1)
        found[at][0] += 1
    return found

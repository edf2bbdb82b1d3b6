"""What a day comes to in a few figures, and several days in means with their confidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Final

from topod.simulate.measures import HOUR, Measures


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure: how it is called in JSON and for people, and in what it is told."""

    key: str
    text: str
    unit: str = ""
    """`%`: a share; `s`: seconds."""


FIGURES: Final = (
    Figure(key="preemptions", text="preemptions"),
    Figure(key="satisfied", text="affinity satisfied", unit="%"),
    Figure(key="gpus_satisfied", text="  in GPUs alone", unit="%"),
    Figure(key="victims", text="victims a preemption"),
    Figure(key="idled", text="GPUs idled a preemption"),
    Figure(key="lost", text="work lost, GPU-hours"),
    Figure(key="speed", text="speed kept by placement (model)", unit="%"),
    Figure(key="wait_high_median", text="wait of high, median", unit="s"),
    Figure(key="wait_high_p95", text="  95 of 100", unit="s"),
    Figure(key="wait_low_median", text="wait of low, median", unit="s"),
    Figure(key="wait_low_p95", text="  95 of 100", unit="s"),
    Figure(key="utilisation", text="GPUs held", unit="%"),
    Figure(key="useful", text="  for work that was kept", unit="%"),
    Figure(key="fragmentation", text="fragmentation of free GPUs", unit="%"),
    Figure(key="missed", text="replicas never placed"),
    Figure(key="waiting", text="waiting at the end"),
    Figure(key="search_median", text="search, median, ms"),
    Figure(key="search_p95", text="  95 of 100"),
)
# Student's t for 95 of 100, by degrees of freedom.
_T: Final = (0.0, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)
_T_MANY: Final = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean over runs; `within`: half the width of its 95 % confidence interval, None for one run."""

    value: float
    within: float | None = None


def figures(measures: Measures) -> dict[str, float | None]:
    """Return the figures of a day; None: there is nothing to tell it of."""
    done, waits = measures.preemptions, measures.waits
    high, low = (waits[max(waits)], waits[min(waits)]) if waits else ([], [])
    room = measures.gpus * measures.seconds
    held, lost = sum(measures.held.values()), sum(one.lost for one in done)
    search = [one.search * 1000 for one in done]
    return {
        "preemptions": float(len(done)),
        "satisfied": _share([one.satisfied for one in done]),
        "gpus_satisfied": _share([one.gpus_as_asked for one in done]),
        "victims": _mean([one.victims for one in done]),
        "idled": _mean([one.idled for one in done]),
        "lost": lost / HOUR,
        "speed": measures.kept / measures.started if measures.started else None,
        "wait_high_median": percentile(high, 0.5),
        "wait_high_p95": percentile(high, 0.95),
        "wait_low_median": percentile(low, 0.5),
        "wait_low_p95": percentile(low, 0.95),
        "utilisation": held / room if room else None,
        "useful": (held - lost) / room if room else None,
        "fragmentation": _mean(measures.fragments),
        "missed": float(sum(measures.missed_parts.values())),
        "waiting": float(measures.waiting),
        "search_median": percentile(search, 0.5),
        "search_p95": percentile(search, 0.95),
    }


def means(runs: Sequence[Mapping[str, float | None]]) -> dict[str, Mean | None]:
    """Return each figure over several runs; runs that have nothing to tell are left out."""
    found: dict[str, Mean | None] = {}
    for figure in FIGURES:
        values = [value for run in runs if (value := run[figure.key]) is not None]
        found[figure.key] = _with_confidence(values) if values else None
    return found


def _with_confidence(values: Sequence[float]) -> Mean:
    if len(values) == 1:
        return Mean(value=values[0])
    free = len(values) - 1
    factor = _T[free] if free < len(_T) else _T_MANY
    return Mean(value=mean(values), within=factor * stdev(values) / len(values) ** 0.5)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value that this share of the values does not exceed."""
    if not values:
        return None
    if share == 0.5:
        return median(values)
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _mean(values: Sequence[float]) -> float | None:
    return mean(values) if values else None

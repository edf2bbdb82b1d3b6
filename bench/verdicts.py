"""What the benchmarks share: rows of figures, and whether a promise is met."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """One promise and what was measured."""

    what: str
    value: float
    limit: float
    unit: str
    at_least: bool = False

    def show(self) -> str:
        met = self.value >= self.limit if self.at_least else self.value <= self.limit
        bound = "at least" if self.at_least else "at most"
        return (
            f"{self.what:58} {self.value:9.1f} {self.unit:6} {bound} {self.limit:6g}  "
            f"{'met' if met else 'MISSED'}"
        )


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def head(what: str) -> str:
    return f"{what:44} {'min':>9} {'median':>9} {'p95':>9} {'max':>9}"


def row(name: str, values: Sequence[float]) -> str:
    figures = (min(values), statistics.median(values), percentile(values, 0.95), max(values))
    return f"{name:44} " + " ".join(f"{figure:9.1f}" for figure in figures)

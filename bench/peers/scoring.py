"""What came of a preemption, judged by topod's own tables of the host for everybody alike. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from bench.peers.scenario import Part, State
from topod.flextopo.tables import TopologyTables


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one scheduler did in one state. `host` None: the job did not start."""

    state: str
    victims: frozenset[str]
    """Names of the jobs that were stopped."""
    host: str | None
    gpus: int
    """Those that the job got, as a mask."""
    seconds: float = 0.0
    """From the start of the submitting command to the job's first line."""
    accepted: float = 0.0
    """To the end of that command."""


@dataclass(frozen=True, slots=True)
class Score:
    """The figures of one preemption."""

    satisfied: bool
    victims: int
    idled: int
    """GPUs that victims lost and the job did not take."""
    spare: int
    """Victims that held none of the GPUs that the job got."""


def score(part: Part, state: State, tables: TopologyTables, outcome: Outcome) -> Score:
    """Judge one preemption."""
    hit = [filler for filler in state.fillers if filler.name in outcome.victims]
    lost = sum(filler.gpus.bit_count() for filler in hit)
    used = [filler for filler in hit if filler.host == outcome.host and filler.gpus & outcome.gpus]
    taken = sum((filler.gpus & outcome.gpus).bit_count() for filler in used)
    right = outcome.host is not None and outcome.gpus.bit_count() == part.gpus
    return Score(
        satisfied=right and bool(tables.satisfies(part.affinity)[outcome.gpus]),
        victims=len(hit),
        idled=lost - taken,
        spare=len(hit) - len(used),
    )


def fewest(part: Part, state: State, tables: TopologyTables) -> int | None:
    """Return how many must be stopped to satisfy the request, by trying all sets; None: it cannot be."""
    suitable = [
        mask
        for mask in range(1 << tables.count)
        if mask.bit_count() == part.gpus and tables.satisfies(part.affinity)[mask]
    ]
    found: list[int] = []
    for host, free in state.free.items():
        here = [filler.gpus for filler in state.fillers if filler.host == host]
        for count in range(len(here) + 1):
            freed = (free | sum(chosen) for chosen in combinations(here, count))
            if any(mask & ~have == 0 for have in freed for mask in suitable):
                found.append(count)
                break
    return min(found, default=None)


def figures(scores: Sequence[Score], outcomes: Sequence[Outcome], least: Sequence[int]) -> dict[str, float]:
    """Return the means and medians of a part."""
    many = len(scores)
    ran = [outcome for outcome in outcomes if outcome.host is not None]
    waits = sorted(outcome.seconds for outcome in ran)
    return {
        "preemptions": many,
        "never_ran": many - len(ran),
        "satisfied": sum(one.satisfied for one in scores) / many,
        "victims": statistics.mean(one.victims for one in scores),
        "fewest_victims": statistics.mean(least),
        "idled": statistics.mean(one.idled for one in scores),
        "spare_victims": sum(one.spare for one in scores) / many,
        "latency_median": statistics.median(waits) if waits else float("nan"),
        "latency_worst": waits[-1] if waits else float("nan"),
        "accepted_median": statistics.median(one.accepted for one in ran) if ran else float("nan"),
    }


HEADS = (
    *("scenario", "scheduler", "preemptions", "affinity satisfied", "victims each", "fewest possible"),
    *("GPUs idled each", "first line after, median", "slowest", "the command took"),
)


def table(rows: Mapping[tuple[str, str], Mapping[str, float]]) -> str:
    """Return the figures side by side, by (part, scheduler)."""
    cells = [
        [
            part,
            peer,
            f"{found['preemptions']:.0f}",
            f"{found['satisfied']:.0%}",
            f"{found['victims']:.2f}",
            f"{found['fewest_victims']:.2f}",
            f"{found['idled']:.2f}",
            f"{found['latency_median'] * 1e3:.0f} ms",
            f"{found['latency_worst'] * 1e3:.0f} ms",
            f"{found['accepted_median'] * 1e3:.0f} ms",
        ]
        for (part, peer), found in rows.items()
    ]
    return markdown(HEADS, cells)


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as the pages have them."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

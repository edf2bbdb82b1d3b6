"""Brings every scheduler up, one after the other, and lives through the scenario on each."""

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers.fleet import NAME, TopodFleet
from bench.peers.model import Nearness, nearness, predicted
from bench.peers.peer import Peer, clear, fill, preempt, submits_each_second
from bench.peers.scenario import Part, Scenario, State, states_of
from bench.peers.scoring import Outcome, fewest, figures, score
from bench.peers.slurm import BEST, PLAIN, Settings, Slurm
from topod.discovery.library import load_library_host
from topod.flextopo.tables import TopologyTables

TIMES = 3
"""Repetitions of what is only a speed."""


@dataclass
class Found:
    """All that was measured."""

    rows: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    """By (part, scheduler)."""
    submits: dict[str, float] = field(default_factory=dict)
    """A second, by who submits how."""
    models: dict[tuple[str, str], Nearness] = field(default_factory=dict)
    outcomes: dict[tuple[str, str], list[Outcome]] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)
    """Of the machine, before each part."""


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="topod-peers-", ignore_cleanup_errors=True) as folder:
        # munge wants everybody to reach its socket.
        Path(folder).chmod(0o711)
        yield Path(folder)


def measure(scenario: Scenario) -> Found:
    """Live through the scenario on Slurm in both settings and on topod."""
    found = Found()
    for part in scenario.parts:
        tables = TopologyTables(load_library_host(part.host).topology)
        states = states_of(scenario, part, tables.count)
        least = [fewest(part, state, tables) for state in states]
        if None in least:
            raise SystemExit(
                f"part {part.name}: a {part.host} cannot give {part.gpus} GPUs so near each other"
            )
        found.loads.append(os.getloadavg()[0])
        for name, outcomes in _by_everybody(scenario, part, tables, states, found):
            scores = [
                score(part, *each) for each in zip(states, [tables] * len(states), outcomes, strict=True)
            ]
            found.outcomes[part.name, name] = outcomes
            found.rows[part.name, name] = figures(scores, outcomes, [one or 0 for one in least])
        for settings in (PLAIN, BEST):
            said = [predicted(part, state, tables, bind=settings.together) for state in states]
            measured = found.outcomes[part.name, settings.name]
            found.models[part.name, settings.name] = nearness(said, measured)
    return found


def _by_everybody(
    scenario: Scenario, part: Part, tables: TopologyTables, states: list[State], found: Found
) -> Iterator[tuple[str, list[Outcome]]]:
    count = scenario.submits if part is scenario.parts[0] else 0
    for settings in (PLAIN, BEST):
        with _folder() as folder, _slurm(folder, part, tables, settings) as slurm:
            yield settings.name, _live(slurm, part, tables, states, settings.name)
            if count:
                found.submits[f"{settings.name}, `sbatch`"] = _commands(slurm, count, tables)
    with _folder() as folder, TopodFleet(folder, part.host, part.host_names) as fleet:
        yield NAME, _live(fleet, part, tables, states, NAME)
        if count:
            found.submits[f"{NAME}, `topoctl submit`"] = _commands(fleet, count, tables)
            found.submits[f"{NAME}, one program with one connection"] = _median(
                lambda turn: fleet.over_one_connection(10 * count, tables.count, f"c{turn}-")
            )


def _slurm(folder: Path, part: Part, tables: TopologyTables, settings: Settings) -> Slurm:
    return Slurm(folder, tables.topology, part.host_names, settings)


def _live(peer: Peer, part: Part, tables: TopologyTables, states: list[State], name: str) -> list[Outcome]:
    outcomes = []
    for number, state in enumerate(states, 1):
        print(f"\r{part.name}: {name}: {number} of {len(states)}  ", end="", file=sys.stderr, flush=True)
        clear(peer)
        fill(peer, state, tables.count)
        outcomes.append(preempt(peer, part, state))
    print(file=sys.stderr)
    return outcomes


def _commands(peer: Peer, count: int, tables: TopologyTables) -> float:
    return _median(lambda turn: submits_each_second(peer, count, tables.count, f"s{turn}-"))


def _median(once: Callable[[int], float]) -> float:
    return statistics.median(once(turn) for turn in range(TIMES))

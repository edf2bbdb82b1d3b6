"""The same states and requests on a real Slurm and on topod: `python -m bench.peers [--write]`.

GPUs are emulated on both sides; daemons, sockets, databases and the processes of jobs are real.
"""

import argparse
import contextlib
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import msgspec

from bench.peers.scenario import FILE, Scenario, mask_to_gpus, read
from bench.peers.sides import Answer, Side, fill
from bench.peers.slurm_side import SlurmSide, check_installed
from bench.peers.topod_side import TopodSide
from topod.errors import TopodError
from topod.model.request import Affinity
from topod.simulate.policies.slurm import Slurm

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "evidence.md"
SUBMITS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A scenario on one side."""

    scenario: str
    host: str
    gpus: list[int]
    victims: list[int]
    seconds: float
    satisfied: bool
    idled: int
    """GPUs that victims lost and the job did not take."""
    in_vain: int
    """Victims that held none of the GPUs that the job got."""
    fewest: int
    """Victims of the least plan for what was asked."""
    as_model: bool | None = None
    """Whether the simulation's model of Slurm stops the same jobs and gives the same GPUs."""


Results = dict[str, tuple[list[Case], list[float]]]
"""By side: what came of each scenario, and submits a second as `Side.submits` tells."""


def judge(scenario: Scenario, answer: Answer, *, modelled: bool) -> Case:
    """Return what an answer is worth; `modelled`: it is Slurm's, asked as its model asks."""
    freed = {gpu for victim in answer.victims for gpu in scenario.jobs[victim]}
    return Case(
        scenario=scenario.name,
        host=scenario.host,
        gpus=sorted(answer.gpus),
        victims=answer.victims,
        seconds=answer.seconds,
        satisfied=scenario.satisfied(answer.gpus),
        idled=len(freed - set(answer.gpus)),
        in_vain=sum(not set(scenario.jobs[victim]) & set(answer.gpus) for victim in answer.victims),
        fewest=scenario.fewest(scenario.affinity),
        as_model=_as_model(scenario, answer) if modelled else None,
    )


def _as_model(scenario: Scenario, answer: Answer) -> bool:
    found = Slurm().preempt(scenario.request(Affinity.SOCKET), [scenario.machine()], 1e6)
    return (
        found is not None
        and sorted(found.victims) == sorted(answer.victims)
        and mask_to_gpus(found.gpus) == sorted(answer.gpus)
    )


def run(side: Side, scenarios: Sequence[Scenario], *, modelled: bool) -> list[Case]:
    """Live through all scenarios on one side."""
    cases = []
    for scenario in scenarios:
        side.clear()
        jobs = fill(side, scenario)
        cases.append(judge(scenario, side.ask(scenario, jobs), modelled=modelled))
        print(f"{side.name}: {scenario.name}: {asdict(cases[-1])}", file=sys.stderr, flush=True)
    return cases


def table(results: Results) -> str:
    """Return one row a host and side."""
    heads = [
        "host, asked",
        "scheduler",
        "requests",
        "affinity satisfied",
        "victims",
        "fewest for the affinity",
    ]
    heads += ["in vain", "GPUs idled", "submit to first line: median, most"]
    heads += ["submits a second: command, open connection"]
    rows = [heads, ["---"] * len(heads)]
    for host in dict.fromkeys(case.host for cases, _ in results.values() for case in cases):
        for name, (cases, rates) in results.items():
            mine = [case for case in cases if case.host == host]
            times = [case.seconds for case in mine]
            rows.append(
                [
                    host,
                    name,
                    str(len(mine)),
                    f"{sum(case.satisfied for case in mine) / len(mine):.0%}",
                    f"{statistics.mean(len(case.victims) for case in mine):.2f}",
                    f"{statistics.mean(case.fewest for case in mine):.2f}",
                    f"{statistics.mean(case.in_vain for case in mine):.2f}",
                    f"{statistics.mean(case.idled for case in mine):.2f}",
                    f"{statistics.median(times):.2f}, {max(times):.2f} s",
                    ", ".join(f"{rate:.0f}" for rate in rates),
                ]
            )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write(text: str) -> None:
    """Put the table into the page, between its marks."""
    page = PAGE.read_text(encoding="utf-8")
    place = re.search(r"(?<=<!-- table: peers -->\n).*?(?=\n<!-- end -->)", page, re.DOTALL)
    assert place is not None
    PAGE.write_text(page[: place.start()] + text + page[place.end() :], encoding="utf-8")


def measure(scenarios: Sequence[Scenario], folder: Path) -> Results:
    """Bring both up, and run all on each of them."""
    hosts = list(dict.fromkeys(one.host for one in scenarios))
    results: Results = {}
    with contextlib.ExitStack() as stack:
        slurm = stack.enter_context(SlurmSide(folder / "slurm", hosts, bind=True))
        plain = SlurmSide(folder / "slurm", hosts, bind=False, running=slurm)
        topod = stack.enter_context(TopodSide(folder / "topod", hosts))
        for side in (topod, slurm, plain):
            cases = run(side, scenarios, modelled=side is slurm)
            fill(side, scenarios[0])
            rounds = [side.submits(hosts[0], SUBMITS) for _ in range(3)]
            side.clear()
            results[side.name] = cases, [statistics.median(rates) for rates in zip(*rounds, strict=True)]
    return results


def main() -> int:
    """Make what is asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scenario", type=Path, default=FILE, metavar="FILE", help="else those of bench/peers"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="so many of each host")
    parser.add_argument("--write", action="store_true", help="put the table into docs/evidence.md")
    parser.add_argument("-o", dest="output", choices=["table", "json"], default="table")
    given = parser.parse_args()
    try:
        check_installed()
        scenarios = read(given.scenario)
        if given.limit:
            by_host = {one.host: [s for s in scenarios if s.host == one.host] for one in scenarios}
            scenarios = [one for all_of in by_host.values() for one in all_of[: given.limit]]
        with tempfile.TemporaryDirectory(prefix="peers-") as folder:
            results = measure(scenarios, Path(folder))
    except TopodError as error:
        print(f"error: {error}" + (f"\n\n{error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_status
    if given.output == "json":
        print(msgspec.json.encode(results).decode())
    else:
        print(table(results))
    for name, (cases, _) in results.items():
        told = [case.as_model for case in cases if case.as_model is not None]
        if told:
            print(f"{name}: as the simulation's model says in {sum(told)} of {len(told)}", file=sys.stderr)
    print(f"load of this machine {os.getloadavg()[0]:.1f}", file=sys.stderr)
    if given.write:
        write(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())

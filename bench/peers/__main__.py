"""The same scenario on a real Slurm and on topod, in one run: `python -m bench.peers [--scenario FILE]`.

Both run here, on loopback, with GPUs that do not exist. Needs Debian's slurm-wlm and munge; installs nothing.
"""

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import msgspec

from bench.evidence.__main__ import write
from bench.peers.run import TIMES, Found, measure
from bench.peers.scenario import Scenario, read_scenario
from bench.peers.scoring import markdown, table
from bench.peers.slurm import BEST, PACKAGES, PLAIN, missing, version
from topod.errors import TopodError

SCENARIO: Final = Path(__file__).with_name("scenario.toml")
MISSING, WRONG = 2, 1


def tables(found: Found) -> list[tuple[str, str]]:
    """Return the tables with their names."""
    submits = [[who, f"{rate:.0f}"] for who, rate in found.submits.items()]
    models = [
        [
            *(part, peer, f"{near.same_victims} of {near.states}", f"{near.same_gpus} of {near.states}"),
            f"{near.victims:.2f}, {near.measured:.2f}",
        ]
        for (part, peer), near in found.models.items()
    ]
    heads = ["scenario", "scheduler", "same victims", "and the same GPUs", "victims each: model, measured"]
    return [
        ("peers", table(found.rows)),
        ("peers-submits", markdown(["submits, one after the other", "a second"], submits)),
        ("peers-model", markdown(heads, models)),
    ]


def settings(scenario: Scenario) -> list[str]:
    """Return what each was set to, and that the GPUs are none."""
    hosts = ", ".join(f"{part.hosts} x {part.host}" for part in scenario.parts)
    common = "select/cons_tres, CR_Core, preempt/partition_prio, PreemptMode=REQUEUE, GraceTime=0"
    return [
        f"hosts: {hosts}; no GPU is real: Slurm's are links to {os.devnull}, topod's an emulated host",
        f"both: jobs are processes that end at once on SIGTERM; {scenario.states} states a part, the same",
        f"{version()}: {common}; gres.conf: Cores= by socket, Links= NVLinks (a PCIe switch counts 1)",
        f"  {PLAIN.name}: nothing else; asked with --gres=gpu:N",
        f"  {BEST.name}: {' '.join(BEST.lines)}",
        "    asked with --gpus=N --gpus-per-socket=N --sockets-per-node=1",
        "topod: a coordinator and a daemon for each host as they come; asked with --affinity, guaranteed",
    ]


def as_json(scenario: Scenario, found: Found, seconds: float) -> str:
    """Return all that was measured, for programs."""
    rows = [
        {"part": part, "scheduler": peer}
        | {name: None if math.isnan(value) else value for name, value in row.items()}
        for (part, peer), row in found.rows.items()
    ]
    models = [
        {"part": part, "scheduler": peer, **asdict(near)} for (part, peer), near in found.models.items()
    ]
    answers = [
        {**asdict(one), "part": part, "scheduler": peer, "victims": sorted(one.victims)}
        for (part, peer), outcomes in found.outcomes.items()
        for one in outcomes
    ]
    return json.dumps(
        {
            "settings": settings(scenario),
            "scenario": msgspec.to_builtins(scenario),
            "rows": rows,
            "submits_a_second": found.submits,
            "models": models,
            "outcomes": answers,
            "loads": found.loads,
            "seconds": seconds,
        },
        indent=1,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit status: 2 where Slurm is not installed, 1 where the scenario is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument(
        "--scenario", type=Path, default=SCENARIO, metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--states", type=int, metavar="N", help="of each part, instead of the file's number")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/evidence.md")
    given = parser.parse_args(arguments)
    # Whoever is told to end ends its daemons first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if missing():
        print(
            f"no {missing()[0]} here; needed are, on Debian: apt install {' '.join(PACKAGES)}",
            file=sys.stderr,
        )
        return MISSING
    try:
        scenario = read_scenario(given.scenario)
        if given.states is not None:
            scenario = msgspec.structs.replace(scenario, states=max(1, given.states))
        began = time.monotonic()
        found = measure(scenario)
    except (TopodError, TimeoutError, RuntimeError, AssertionError, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    seconds = time.monotonic() - began
    if given.output == "json":
        print(as_json(scenario, found, seconds))
    else:
        print("\n".join(settings(scenario)))
        loads = ", ".join(f"{load:.1f}" for load in found.loads)
        print(f"speeds: medians of {TIMES}; load before each part: {loads}; took {seconds:.0f} s")
    if given.write:
        # What it prints of the tables must not stand among JSON.
        with contextlib.redirect_stdout(sys.stderr if given.output == "json" else sys.stdout):
            write(iter(tables(found)))
    elif given.output == "table":
        for _, text in tables(found):
            print(f"\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

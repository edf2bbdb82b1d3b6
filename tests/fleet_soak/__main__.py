"""`make soak`, its last part: a real fleet in network namespaces under load, with links cut and processes killed.

`python -m tests.fleet_soak --seed N` plays one schedule of faults again; what the machine makes of it may differ.
"""

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fleet_soak.schedule import FAULT_EVERY_SECONDS, LONGEST_SECONDS, schedule
from tests.fleet_soak.stage import Stage
from tests.fleet_soak.verdict import too_long_away, verdict
from tests.netns import NoNamespacesError, missing_parts

MINUTES = 10.0
HOSTS = ("a", "b", "c", "d", "e")
REST_SECONDS = 240.0
BAR_WIDTH = 40


def soak(
    folder: Path,
    *,
    seed: int,
    seconds: float,
    hosts: Sequence[str] = HOSTS,
    fault_every: float = FAULT_EVERY_SECONDS,
    longest: float = LONGEST_SECONDS,
    told: Callable[[float, Counter[str]], None] = lambda _, __: None,
) -> tuple[Stage, list[str]]:
    """Play one schedule and return the stage, closed, and what went wrong."""
    steps = schedule(seed, seconds, hosts, fault_every=fault_every, longest=longest)
    stage = Stage(folder, hosts)
    with stage.fleet:
        try:
            stage.play(steps, told, REST_SECONDS)
        except AssertionError as error:
            return stage, [f"not all jobs came to an end: {error}"[:20_000]]
        return stage, verdict(stage)


class _Progress:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def __call__(self, at: float, faults: Counter[str]) -> None:
        if at < self._next:
            return
        self._next = at + (1.0 if sys.stdout.isatty() else 30.0)
        filled = min(BAR_WIDTH, int(BAR_WIDTH * at / self._seconds))
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        left = max(0.0, self._seconds - at)
        end = "\r" if sys.stdout.isatty() else "\n"
        print(f"[{bar}] {at:.0f} s, {left:.0f} s left, {faults.total()} faults ", end=end, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet_soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of the schedule")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"default {MINUTES:g}")
    parser.add_argument("--keep", action="store_true", help="leave logs and databases even if all went well")
    given = parser.parse_args(arguments)
    if reason := missing_parts():
        print(f"no soak of a fleet: {reason}")
        return 0
    folder = Path(tempfile.mkdtemp(prefix="topod-soak-"))
    seconds, begin = given.minutes * 60, time.monotonic()
    print(f"a fleet of {len(HOSTS)} hosts for {given.minutes:g} min, seed {given.seed}", flush=True)
    try:
        stage, wrong = soak(folder, seed=given.seed, seconds=seconds, told=_Progress(seconds))
    except NoNamespacesError as error:
        print(f"no soak of a fleet: {error}")
        return 0
    books = stage.books
    faults = ", ".join(f"{count} {name}" for name, count in sorted(books.faults.items()))
    print(f"\n{len(books.accepted)} jobs, {faults}; {time.monotonic() - begin:.0f} s")
    if late := too_long_away(books):
        print(f"{len(late)} times a topod was away for longer than a fleet allows: this machine is slow")
    if wrong:
        print("\n".join(f"WRONG: {text}" for text in wrong))
        print(f"logs are in {folder}; again: python -m tests.fleet_soak --seed {given.seed}")
        return 1
    if not given.keep:
        shutil.rmtree(folder)
    print("nothing went wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`make soak`: ten thousand days and more, on all cores; or one day again, with its trace.

`python -m tests.simulation` stops at the first seed that fails and prints it with the end of its trace; the same
seed always gives the same day: `make soak SEED=4711`, or `python -m tests.simulation --seed 4711 --trace`.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.simulation.chance import ALL_FAULTS
from tests.simulation.day import Day

SEEDS = 10_000
MINUTES = 60.0
TAIL_LINES = 40
BAR_WIDTH = 40
CHUNK = 20


def outcome_of(seed: int) -> tuple[int, list[str], Counter[str]]:
    """Live through one day; return its seed, what went wrong, and which faults struck."""
    day = Day(seed)
    try:
        wrong = day.run()
    except Exception as error:  # noqa: BLE001 - a seed that breaks the simulation itself is told like any other
        wrong = [f"the simulation failed: {error!r}"]
    return seed, wrong, day.chance.happened


def replay(seed: int, *, trace: bool) -> int:
    """Live through one day again; print how it ended, and what led there."""
    day = Day(seed, keep_trace=True)
    wrong = day.run()
    lines = day.chance.trace if trace else day.chance.trace[-TAIL_LINES:] if wrong else []
    print("\n".join(lines))
    print(f"seed {seed}: {day.lives} lives, {day.steps} steps, trace {day.chance.digest[:16]}")
    print("\n".join(f"WRONG: {text}" for text in wrong) or "nothing went wrong")
    return 1 if wrong else 0


def soak(seeds: Iterable[int], *, total: int, minutes: float, jobs: int) -> int:
    """Live through many days on all cores, at most so many minutes; stop at the first that goes wrong."""
    # By its full name: other processes cannot import what `python -m` calls `__main__`.
    from tests.simulation.__main__ import outcome_of as live  # noqa: PLC0415 - as said

    begin, done = time.monotonic(), 0
    happened: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for seed, wrong, struck in pool.imap_unordered(live, seeds, CHUNK):
            done += 1
            happened += struck
            if wrong:
                pool.terminate()
                print(f"\nseed {seed} fails; the end of its day:\n")
                replay(seed, trace=False)
                print(f"\nagain: make soak SEED={seed}")
                return 1
            spent = time.monotonic() - begin
            if done % CHUNK == 0 or done == total:
                _progress(done, total, spent)
            if spent > minutes * 60:
                pool.terminate()
                break
    missing = [fault for fault in ALL_FAULTS if not happened[fault]]
    print(f"\n{done} days, {sum(happened.values())} faults of {len(happened)} kinds; nothing went wrong")
    if missing:
        print(f"never struck: {', '.join(missing)}")
    return 0


def _progress(done: int, total: int, spent: float) -> None:
    filled = BAR_WIDTH * done // total
    left = spent / done * (total - done)
    bar = "#" * filled + "." * (BAR_WIDTH - filled)
    end = "\r" if sys.stdout.isatty() else "\n"
    if sys.stdout.isatty() or done % (CHUNK * 50) == 0 or done == total:
        print(f"[{bar}] {done}/{total} days, {spent:.0f} s, {left:.0f} s left ", end=end, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="live through this one day and print the end of its trace")
    parser.add_argument("--trace", action="store_true", help="with --seed: print the whole trace")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many days (default {SEEDS})")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="stop after so long (default 60)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    given = parser.parse_args(arguments)
    if given.seed is not None:
        return replay(given.seed, trace=given.trace)
    seeds = range(given.first, given.first + given.seeds)
    return soak(seeds, total=given.seeds, minutes=given.minutes, jobs=given.jobs)


if __name__ == "__main__":
    sys.exit(main())

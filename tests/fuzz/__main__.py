"""`make soak-fuzz`: a hundred thousand damaged inputs to every reader, and thousands to a real topod's socket.

Stops at the first that ends in anything but a value or one line of error, prints the smallest such input and how to
see it again: `python -m tests.fuzz --target NAME --seed N`.
"""

import argparse
import itertools
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.batches import BATCH, batch, tasks
from tests.fuzz.sockets import besiege
from tests.fuzz.targets import TARGETS

CASES = 100_000
SOCKET_SHARE = 20
"""One message to the socket for so many other cases."""
BAR_WIDTH = 40


def soak(cases: int, first: int, *, minutes: float, jobs: int) -> int:
    """Try so many inputs on all cores; return the exit status."""
    begin, done = time.monotonic(), 0
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        work = itertools.islice(tasks(first), cases // BATCH * 2)
        for name, number, tried, wrong in pool.imap_unordered(batch, work):
            done += tried
            if wrong:
                pool.terminate()
                print(f"\n{wrong}\n\nagain: python -m tests.fuzz --target {name} --seed {number}")
                return 1
            bar("inputs", done, cases)
            if done >= cases:
                pool.terminate()
                break
            if time.monotonic() - begin > minutes * 60:
                pool.terminate()
                print(f"\nout of time after {done} inputs ({minutes:g} minutes)")
                return 1
    print()
    return 0


def bar(what: str, done: int, total: int) -> None:
    """Draw the progress bar anew."""
    full = min(BAR_WIDTH, BAR_WIDTH * done // max(1, total))
    line = f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] {done}/{total} {what}"
    print(f"\r{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)


def main() -> int:
    """Read the command line and fuzz."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--seed", type=int, default=None, help="of the first batch (default: by the clock)")
    parser.add_argument("--target", choices=[*(target.name for target in TARGETS), "socket"])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given_ = parser.parse_args()
    first = int(time.time()) % 10**9 if given_.seed is None else given_.seed
    if given_.target not in (None, "socket"):
        *_, tried, wrong = batch((given_.target, first))
        print(wrong or f"{tried} inputs to {given_.target}, seed {first}: nothing went wrong")
        return 1 if wrong else 0
    print(f"seed {first}")
    status = 0
    if given_.target is None:
        status = soak(given_.cases, first, minutes=given_.minutes, jobs=given_.jobs)
    if status == 0:
        messages = given_.cases // SOCKET_SHARE
        with tempfile.TemporaryDirectory(prefix="topod-fuzz-") as folder:
            besiege(Path(folder), first, messages, progress=lambda done: bar("messages", done, messages))
        print(f"\n{messages} messages to a real topod: alive, and its state as it was")
    return status


if __name__ == "__main__":
    sys.exit(main())

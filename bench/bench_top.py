"""What `topoctl top` takes of a core: `python -m bench.bench_top [--quick]`.

The real command on a terminal of 200 by 50 that takes all it prints. It watches a fleet of emulated hosts
(`bench.emulated_hosts`) each of which changes twice a second, under a real coordinator; then one busy host: a
real topod on an emulated machine, on which jobs start and end every second, and GPUs are read every two; then
the table of jobs of a full host, on which nothing happens but that time passes, with hundreds that wait. Its
start is not counted. Last, the screen alone with 5,000 hosts: an answer that names all of them, one that
changes 200 while they are sorted by what is free, and a page further.
"""

import argparse
import asyncio
import contextlib
import fcntl
import itertools
import os
import pty
import random
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import psutil
from textual.pilot import Pilot

from bench.big_fleet import BigFleet, Used
from bench.verdicts import Verdict
from tests.integration.daemon_process import ROOT, Topod
from topod.coordinator.rows import kind_of
from topod.discovery.library import load_library_host
from topod.errors import TopodError
from topod.flextopo.tables import TopologyTables
from topod.protocol.client import Client
from topod.protocol.replies import FleetChanges
from topod.protocol.views import FleetRow, FreeGroup, HeldGpus
from topotui.fleet import FleetApp
from topotui.fleet_panes import HostLines

FLEET_PERCENT, HOST_PERCENT = 15.0, 3.0
COLUMNS, LINES = 200, 50
BEGIN_SECONDS = 6.0
ACTIVE_SECONDS = 0.5


class Screen:
    """`topoctl top` on a terminal of its own."""

    def __init__(self, socket: Path) -> None:
        self._command = [sys.executable, "-m", "topoctl", "--socket", str(socket), "top"]
        self.printed = 0
        """Bytes."""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._terminal, line = pty.openpty()
        fcntl.ioctl(line, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self._process = subprocess.Popen(
            self._command,
            stdin=line,
            stdout=line,
            stderr=line,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        os.close(line)
        threading.Thread(target=self._drain, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._terminal, 1 << 16):
                self.printed += len(data)

    def press(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        assert self._process.poll() is None, "topoctl top has ended"
        return psutil.Process(self._process.pid)

    def measured(self, what: str, seconds: float) -> float:
        """Return the percent of a core that it takes; prints that."""
        printed = self.printed
        with Used(self.process) as used:
            time.sleep(seconds)
        memory = self.process.memory_info().rss / 1e6
        rate = (self.printed - printed) / used.seconds / 1e3
        print(f"{what}: {used.percent:.1f}% of a core, {memory:.0f} MB, {rate:.0f} kB/s printed", flush=True)
        return used.percent


def fleet(hosts: int, seconds: float) -> list[Verdict]:
    """Watch hosts that change twice a second."""
    with (
        tempfile.TemporaryDirectory(prefix="topod-bench-") as folder,
        BigFleet(Path(folder), hosts, every=ACTIVE_SECONDS) as busy,
    ):
        busy.until_ready()
        time.sleep(BEGIN_SECONDS)
        with Used(busy.process) as alone:
            time.sleep(seconds)
        with Screen(busy.coordinator.socket) as screen:
            time.sleep(BEGIN_SECONDS)
            with Used(busy.process) as watched:
                percent = screen.measured(f"top, {hosts} hosts that change twice a second", seconds)
            screen.press(b"ss")  # by what is free: the lines move all the time
            time.sleep(1.0)
            screen.measured("    the same, sorted by free GPUs", seconds)
        print(
            f"    its coordinator: {watched.percent:.1f}%; {alone.percent:.1f}% when nobody watches",
            flush=True,
        )
    return [Verdict(f"top: {hosts} hosts, each changes twice a second", percent, FLEET_PERCENT, "%")]


def busy_host(seconds: float) -> list[Verdict]:
    """Watch one host on which jobs come and go."""
    with (
        tempfile.TemporaryDirectory(prefix="topod-bench-") as folder,
        Topod(Path(folder) / "d", host="hgx-h100") as topod,
    ):
        topod.start()
        with jobs_all_the_time(topod), Screen(topod.socket) as screen:
            time.sleep(BEGIN_SECONDS)
            percent = screen.measured("top, one busy host", seconds)
    return [Verdict("top: one busy host", percent, HOST_PERCENT, "%")]


def many_jobs(counts: Sequence[int], seconds: float) -> list[Verdict]:
    """Watch the table of jobs of a host that is full, with so many jobs that wait."""
    with (
        tempfile.TemporaryDirectory(prefix="topod-bench-") as folder,
        Topod(Path(folder) / "d", host="hgx-h100") as topod,
    ):
        topod.start()
        topod.submit("sleep", "5000", gpus=8, priority=1000)
        waiting, verdicts = 0, []
        for count in counts:
            while waiting < count:
                topod.submit("sleep", "5000", gpus=1, priority=100)
                waiting += 1
            with Screen(topod.socket) as screen:
                time.sleep(BEGIN_SECONDS)
                screen.press(b"2")
                time.sleep(1.0)
                percent = screen.measured(f"top, the table of {count + 1} jobs", seconds)
            verdicts.append(Verdict(f"top: the table of {count + 1} jobs", percent, HOST_PERCENT, "%"))
    return verdicts


async def thousands(hosts: int) -> None:
    """Show so many hosts without a terminal; prints the CPU time of each thing."""
    tables = TopologyTables(load_library_host("dgx1").topology)

    def row(number: int, held: int) -> FleetRow:
        return FleetRow(
            name=f"node-{number}",
            state="ready",
            kind="dgx1",
            gpus=8,
            held=[HeldGpus(str(number), 500, (1 << held) - 1, number)],
            free=[FreeGroup("nvlink", 8 - held, 1)],
            labels={"rack": f"r{number // 32}"},
        )

    def changes(number: int, rows: list[FleetRow], *, whole: bool = False) -> FleetChanges:
        kinds = [kind_of("dgx1", tables)] if whole else []
        return FleetChanges(life="x", number=number, now=0.0, whole=whole, hosts=rows, kinds=kinds)

    async def timed(pilot: Pilot[None], work: Callable[[], object], times: int) -> float:
        begun = time.process_time()
        for _ in range(times):
            work()
            await pilot.pause()
        return (time.process_time() - begun) / times * 1e3

    def nobody(_: str) -> Client:
        return Client(Path("/nowhere"))

    app = FleetApp(nobody)
    async with app.run_test(size=(COLUMNS, LINES)) as pilot:
        lines = app.fleet.query_one(HostLines)
        numbers = itertools.count(2)
        every = [row(number, number % 7) for number in range(hosts)]
        first = await timed(pilot, lambda: app.fleet.take(changes(next(numbers), every, whole=True)), 1)
        lines.sort = "free"
        lines.again()
        some = [[row(number * 25 + turn, turn % 7) for number in range(200)] for turn in range(20)]
        more = await timed(
            pilot, lambda: app.fleet.take(changes(number := next(numbers), some[number % 20])), 20
        )
        page = await timed(pilot, lambda: lines.action_page(1), 100)
    print(
        f"{hosts} hosts, CPU time: all of them {first:.0f} ms; 200 that changed, sorted {more:.1f} ms;"
        f" a page further {page:.1f} ms",
        flush=True,
    )


@contextlib.contextmanager
def jobs_all_the_time(topod: Topod) -> Iterator[None]:
    """Submit a job every second."""
    ended = threading.Event()

    def submit() -> None:
        rng = random.Random(1)
        while not ended.wait(1.0):
            with contextlib.suppress(TopodError):
                topod.submit(
                    "sleep",
                    str(rng.randint(2, 6)),
                    gpus=rng.choice((1, 2)),
                    priority=rng.choice((100, 500, 1000)),
                )

    thread = threading.Thread(target=submit, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def main(arguments: Sequence[str] | None = None) -> list[Verdict]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40 hosts, for seconds")
    given = parser.parse_args(arguments)
    hosts, seconds = (40, 5.0) if given.quick else (200, 30.0)
    waiting = (0, 100) if given.quick else (0, 350, 1350)
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"\ntopoctl top on a terminal of {COLUMNS} by {LINES}; load of this machine {loads}", flush=True)
    verdicts = [*fleet(hosts, seconds), *busy_host(seconds), *many_jobs(waiting, seconds)]
    asyncio.run(thousands(5000))
    return verdicts


if __name__ == "__main__":
    for verdict in main():
        print(verdict.show())

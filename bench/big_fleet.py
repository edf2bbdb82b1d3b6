"""A real coordinator with hundreds of emulated hosts, and what a process takes of the machine."""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
import psutil

from bench.emulated_hosts import Site
from tests.integration.fleet_process import CoordinatorProcess
from topod.adapters.authorized import Entry, format_entry
from topod.adapters.curve_keys import create_key_file
from topod.protocol.curve import Kind, new_pair
from topod.protocol.replies import Counts
from topod.protocol.requests import GetCounts

HOSTS_IN_A_PROCESS = 250
MEMORY = Path("/dev/shm")  # a file system in memory, where there is one


class BigFleet:
    """The coordinator's process and those of its emulated hosts; leaves none behind."""

    def __init__(self, folder: Path, hosts: int, *, every: float = 0.0) -> None:
        """`every`: so often (seconds) each host changes by itself; 0: never."""
        self.folder = folder
        self._every = every
        self.hosts = hosts
        self._leases = tempfile.TemporaryDirectory(
            prefix="topod-bench-", dir=MEMORY if MEMORY.is_dir() else None
        )
        keys = create_key_file(folder / "coordinator.key", Kind.COORDINATOR, "head")
        authorized = folder / "authorized_keys"
        self.coordinator = CoordinatorProcess(folder / "head", folder / "coordinator.key", authorized)
        pairs = [(f"h{number:04}", new_pair()) for number in range(hosts)]
        lines = (
            format_entry(Entry(public=pair.public, kind=Kind.HOST, name=name)) + "\n" for name, pair in pairs
        )
        authorized.write_text("".join(lines))
        authorized.chmod(0o600)
        site = Site(
            endpoint=self.coordinator.endpoint,
            key=keys.public,
            hosts=[(name, pair.public, pair.secret) for name, pair in pairs],
            leases=self._leases.name,
        )
        (folder / "site.json").write_bytes(msgspec.json.encode(site))
        self.counts = Counts()
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.coordinator.start()
        for first in range(0, self.hosts, HOSTS_IN_A_PROCESS):
            count = min(HOSTS_IN_A_PROCESS, self.hosts - first)
            words = [str(self.folder), str(first), str(count), str(self._every)]
            command = [sys.executable, "-m", "bench.emulated_hosts", *words]
            self._processes.append(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
                )
            )
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._leases.cleanup()
        if self.coordinator.process is not None:
            self.coordinator.kill()

    @property
    def process(self) -> psutil.Process:
        assert self.coordinator.process is not None
        return psutil.Process(self.coordinator.process.pid)

    def ready(self) -> int:
        reply = self.coordinator.ask(GetCounts(), 60.0)
        assert isinstance(reply, Counts)
        self.counts = reply
        return reply.host_states.get("ready", 0)

    def until_ready(self, seconds: float = 120.0) -> float:
        """Wait until every host can take work; return how many seconds that took."""
        begun = time.perf_counter()
        while self.ready() < self.hosts:
            took = time.perf_counter() - begun
            assert took < seconds, f"not all hosts are ready after {took:.0f} s: {self.counts}"
            time.sleep(0.1)
        return time.perf_counter() - begun


@dataclass(slots=True)
class Used:
    """What a process takes while the body of `with Used(...)` runs."""

    process: psutil.Process
    cpu: float = 0.0
    seconds: float = 0.0
    _before: float = 0.0
    _begun: float = 0.0

    def __enter__(self) -> Self:
        self._before, self._begun = self._now(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu, self.seconds = self._now() - self._before, time.perf_counter() - self._begun

    def _now(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    @property
    def percent(self) -> float:
        return 100 * self.cpu / self.seconds

"""topod's side: a coordinator and daemons on loopback, on emulated hosts, with real processes as jobs."""

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from bench.peers.peer import HIGH, Ask, write_script
from tests.integration.fleet_process import Fleet
from topod.model.job import JobSpec
from topod.model.request import PRIORITIES, ResourceRequest
from topod.protocol.client import Client
from topod.protocol.replies import Jobs
from topod.protocol.requests import Cancel, ListJobs, Submit
from topod.protocol.views import JobView

NAME = "topod"


class TopodFleet:
    """One fleet; a `Peer`."""

    def __init__(self, folder: Path, kind: str, hosts: Sequence[str]) -> None:
        self._script, self.begun = write_script(folder)
        self._fleet = Fleet(folder / "fleet", tuple(hosts), kind)
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        try:
            self._fleet.__enter__()
        except BaseException:
            self._fleet.__exit__()
            raise
        self.environment = {"TOPOD_SOCKET": str(self._fleet.coordinator.socket)}
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.cancel(self.alive())
            self._fleet.until(lambda: not self.alive())
        finally:
            self._fleet.__exit__()

    def command(self, ask: Ask) -> list[str]:
        """Return the `topoctl submit` of a user."""
        topoctl = Path(sys.executable).with_name("topoctl")
        affinity = ["--affinity", ask.part.affinity] if ask.part is not None else []
        return [
            *(str(topoctl), "submit", "-q", "--name", ask.name, "--gpus", str(ask.gpus), *affinity),
            *("--cpus", "0", "--priority", "high" if ask.priority == HIGH else "low"),
            *(["--select", f"rack={ask.host}"] if ask.host else []),
            *("--", str(self._script), ask.name),
        ]

    def submit(self, asks: Sequence[Ask]) -> None:
        with Client(self._fleet.coordinator.socket) as client:
            for ask in asks:
                client.ask(self._request(ask), timeout=20.0)

    def _request(self, ask: Ask) -> Submit:
        request = ResourceRequest(gpus=ask.gpus, priority=PRIORITIES[ask.priority])
        spec = JobSpec(name=ask.name, command=(str(self._script), ask.name), request=request)
        return Submit(spec=spec, select=[f"rack={ask.host}"] if ask.host else [])

    def cancel(self, names: Iterable[str]) -> None:
        wanted = set(names)
        jobs = [job.id for job in self._jobs() if job.name in wanted]
        if jobs:
            self._fleet.ask(Cancel(jobs=jobs), 20.0)

    def _jobs(self) -> list[JobView]:
        reply = self._fleet.ask(ListJobs(), 20.0)
        assert isinstance(reply, Jobs)
        return reply.jobs

    def alive(self) -> set[str]:
        return {job.name for job in self._jobs()}

    def running(self) -> set[str]:
        return {job.name for job in self._jobs() if job.state == "running"}

    def over_one_connection(self, count: int, gpus: int, prefix: str) -> float:
        """Return how many submits a second are answered, durable, one after the other."""
        asks = [Ask(f"{prefix}{n}", gpus) for n in range(count)]
        clock = time.monotonic()
        self.submit(asks)
        return count / (time.monotonic() - clock)

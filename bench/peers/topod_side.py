"""topod with real daemons, one for each emulated host, and jobs as real processes."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.peers.scenario import HIGH, LOW, Scenario
from bench.peers.sides import Answer, until
from tests.integration.daemon_process import Topod
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.client import Client
from topod.protocol.replies import Jobs
from topod.protocol.requests import Cancel, ListJobs, Submit

TOPOCTL = Path(sys.executable).with_name("topoctl")


class TopodSide:
    """topod, asked by its command line."""

    name = "topod"

    def __init__(self, folder: Path, hosts: Sequence[str]) -> None:
        self._folder = folder
        self._hosts = {host: Topod(folder / host, host=host, log_level="warning") for host in hosts}
        self._of: dict[str, Topod] = {}

    def __enter__(self) -> Self:
        for host in self._hosts.values():
            host.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self._hosts.values():
            host.close()

    def start(self, host: str, sizes: Sequence[int]) -> list[str]:
        topod = self._hosts[host]
        jobs = [
            topod.submit("sleep", "86400", gpus=size, cpus=0, priority=LOW, on_preempt="cancel").id
            for size in sizes
        ]
        names = [f"{host}/{topod.wait(job, 'running').id}" for job in jobs]
        self._of |= dict.fromkeys(names, topod)
        return names

    def holds(self, job: str) -> list[int]:
        return list(self._of[job].job(_number(job)).gpu_indices)

    def stop(self, jobs: Sequence[str]) -> None:
        for job in jobs:
            self._of[job].ask(Cancel(jobs=[_number(job)]))
        for job in jobs:
            self._of[job].wait(_number(job))

    def ask(self, scenario: Scenario, jobs: Sequence[str]) -> Answer:
        topod = self._hosts[scenario.host]
        line = self._folder / f"{scenario.name}.line"
        line.unlink(missing_ok=True)
        begun = time.time()
        work = f"date +%s.%N > {line}.new; mv {line}.new {line}; exec sleep 86400"
        done = self._submit(topod, scenario.gpus, HIGH, "sh", "-c", work, affinity=scenario.affinity)
        until(line.exists, f"{scenario.name}: the job's first line")
        job = topod.job(int(done.split()[2]))
        ended = [
            place
            for place, name in enumerate(jobs)
            if topod.wait(_number(name), "running").state != "running"
        ]
        return Answer(
            gpus=list(job.gpu_indices), victims=ended, seconds=float(line.read_text(encoding="ascii")) - begun
        )

    def submits(self, host: str, many: int) -> list[float]:
        topod = self._hosts[host]
        begun = time.perf_counter()
        for _ in range(many):
            self._submit(topod, 8, LOW, "true")
        between = time.perf_counter()
        request = ResourceRequest(gpus=8, cpus=0, priority=LOW)
        with Client(topod.socket) as client:
            for _ in range(many):
                client.ask(Submit(spec=JobSpec(name="true", command=("true",), request=request)))
        return [many / (between - begun), many / (time.perf_counter() - between)]

    def clear(self) -> None:
        for topod in self._hosts.values():
            reply = topod.ask(ListJobs())
            assert isinstance(reply, Jobs)
            if reply.jobs:
                topod.ask(Cancel(jobs=[job.id for job in reply.jobs]))
            for job in reply.jobs:
                topod.wait(job.id)

    def _submit(self, topod: Topod, gpus: int, priority: int, *command: str, affinity: str = "any") -> str:
        words = ["--gpus", str(gpus), "--affinity", affinity, "--cpus", "0", "--priority", str(priority)]
        done = subprocess.run(
            [TOPOCTL, "--socket", topod.socket, "submit", *words, "--", *command],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


def _number(job: str) -> int:
    return int(job.rpartition("/")[2])

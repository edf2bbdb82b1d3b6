"""A process that somebody bound to a CPU: seen by a real topod, named, and its CPU not handed out."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon_process import Topod
from topod.protocol.replies import Host
from topod.protocol.requests import GetHost
from topod.protocol.views import HostView

CONFIG = """
[health]
foreign_cpus = "on"
foreign_cpu_interval = 0.2
foreign_cpu_share = 0.05
foreign_cpu_calm = 600
"""
EVERY = 24
"""The CPUs of the emulated host, of which those that this machine has are looked at."""
BURN = "import os; os.sched_setaffinity(0, {%d})\nwhile True: pass"


@pytest.fixture
def topod(tmp_path: Path) -> Iterator[Topod]:
    (tmp_path / "topod.toml").write_text(CONFIG)
    environment = {"TOPOD_CONFIG": str(tmp_path / "topod.toml")}
    with Topod(tmp_path / "t", host="rtx3090x2", environment=environment) as topod:
        yield topod.start()


@pytest.fixture
def cpu() -> int:
    usable = os.sched_getaffinity(0)
    if len(os.sched_getaffinity(1)) < 2 or len(usable) < 2:
        pytest.skip("on a machine with one CPU nothing can be bound to a part of them")
    return max(usable)


def host(topod: Topod) -> HostView:
    reply = topod.ask(GetHost())
    assert isinstance(reply, Host)
    return reply.host


def named(topod: Topod, pid: int) -> list[str]:
    return [cpus for cpus, who in host(topod).foreign_cpus.items() if f"pid {pid} (" in who]


def test_a_bound_and_busy_process_is_named_its_cpu_avoided_and_given_back_when_it_ends(
    topod: Topod, cpu: int
) -> None:
    with subprocess.Popen([sys.executable, "-c", BURN % cpu]) as burner:
        try:
            topod.until(lambda: named(topod, burner.pid) == [str(cpu)])
            job = topod.submit("true", gpus=0, cpus=EVERY, priority=1000)
            topod.until(lambda: f"foreign: pid {burner.pid} (" in topod.job(job.id).reason)
            assert topod.job(job.id).state == "pending"
        finally:
            burner.kill()
    topod.until(lambda: named(topod, burner.pid) == [])


def test_a_job_that_is_bound_by_topod_is_not_foreign(topod: Topod, cpu: int) -> None:
    job = topod.submit(sys.executable, "-c", "while True: pass", gpus=0, cpus=1)
    topod.wait(job.id, "running")
    with subprocess.Popen([sys.executable, "-c", BURN % cpu]) as burner:
        try:
            # The looks that find this one have looked at the job's process as well.
            topod.until(lambda: bool(named(topod, burner.pid)))
        finally:
            burner.kill()
    assert not [who for who in host(topod).foreign_cpus.values() if f"pid {_pid(topod, job.id)} " in who]


def _pid(topod: Topod, ident: int) -> int:
    started = topod.state_dir / "process" / str(topod.job(ident).handle) / "started.json"
    return int(json.loads(started.read_text())["pid"])

"""The main promise, with a real engine: real containers on an emulated host, told apart by what they print."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.engine import PrivateEngine
from tests.integration.daemon_process import Topod
from topod.discovery.library import load_library_host
from topod.model.cpuset import CpuSet
from topod.model.links import LinkClass

pytestmark = pytest.mark.docker

TOPOCTL = Path(sys.executable).parent / "topoctl"
TRAINER = (
    'echo "attempt $TOPOD_ATTEMPT on $TOPOD_GPU_INDICES"; '
    'if [ "$TOPOD_ATTEMPT" -gt 1 ]; then echo finished; exit 0; fi; '
    'trap "echo told to stop; exit 0" TERM; while :; do sleep 0.05; done'
)
SERVER = 'echo "serving on $TOPOD_GPU_INDICES"; trap "exit 0" TERM; while :; do sleep 0.05; done'


class Site:
    """topod on an emulated host with the private engine, used through `topoctl`."""

    def __init__(self, folder: Path, engine: PrivateEngine, host: str) -> None:
        self.engine = engine
        self.host = load_library_host(host).topology
        self.image = ("--image", engine.image, "--grace", "5s")
        self.topod = Topod(folder, host=host, runtime="docker", engine=engine.base_url)
        self.start()

    def start(self, *more: str) -> None:
        self.topod.start(*more)

    def topoctl(self, *words: str, check: bool = True) -> str:
        environment = {**os.environ, "TOPOD_SOCKET": str(self.topod.socket)}
        done = subprocess.run([TOPOCTL, *words], env=environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, name: str, script: str, *flags: str) -> int:
        words = ("submit", "--parsable", "--name", name, *flags, *self.image, "--", "sh", "-c", script)
        return int(self.topoctl(*words))

    def fill(self, sizes: tuple[int, ...], *flags: str) -> list[int]:
        jobs = [
            self.submit(f"train-{n}", TRAINER, "--priority", "low", "--gpus", str(size), *flags)
            for n, size in enumerate(sizes)
        ]
        for job in jobs:
            assert self.topod.wait(job, "running").state == "running"
            self.topod.until(partial(self.has_begun, job))
        return jobs

    def has_begun(self, job: int) -> bool:
        return "attempt 1" in self.log(job)

    def log(self, job: int, *flags: str) -> str:
        return self.topoctl("logs", *flags, str(job), check=False)

    def told(self, jobs: list[int]) -> list[int]:
        """Return the jobs whose first attempt printed that it was told to stop."""
        return [job for job in jobs if "told to stop" in self.log(job, "--attempt", "1")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "t"


@pytest.fixture
def dgx1(folder: Path, engine: PrivateEngine) -> Iterator[Site]:
    site = Site(folder, engine, "dgx1")
    with site.topod:
        yield site


@pytest.fixture
def rtx4090(folder: Path, engine: PrivateEngine) -> Iterator[Site]:
    site = Site(folder, engine, "rtx4090x8")
    with site.topod:
        yield site


def has_nvlink_ring(site: Site, gpus: list[int]) -> bool:
    """Try every order of the GPUs: is there one in which neighbours have NVLinks?"""
    first, *rest = gpus
    return any(
        all(
            site.host.link_class(a, b) is LinkClass.NVLINK
            for a, b in zip((first, *order), (*order, first), strict=True)
        )
        for order in itertools.permutations(rest)
    )


def test_nvlink_on_a_dgx1_stops_two_of_five_and_they_finish_later(dgx1: Site) -> None:
    jobs = dgx1.fill((2, 1, 2, 1, 2))
    serve = dgx1.submit("serve", SERVER, "--priority", "high", "--affinity", "nvlink", "--gpus", "4")
    view = dgx1.topod.wait(serve, "running")
    assert view.state == "running"
    assert has_nvlink_ring(dgx1, view.gpu_indices)
    told = dgx1.told(jobs)
    assert len(told) == 2, "two pairs are enough, and two containers are the fewest that give four GPUs"
    assert sorted(told) == sorted(view.victims or view.plan["victims"])
    states = {job: dgx1.topod.job(job).state for job in jobs}
    assert [job for job in jobs if states[job] == "pending"] == sorted(told)
    dgx1.topoctl("cancel", str(serve))
    for job in told:
        done = dgx1.topod.wait(job)
        assert (done.state, done.starts, done.preemptions) == ("succeeded", 2, 1)
        assert "told to stop" in dgx1.log(job, "--attempt", "1")
        assert dgx1.log(job).endswith("finished\n")
    others = [job for job in jobs if job not in told]
    assert {dgx1.topod.job(job).state for job in others} == {"running"}


def test_numa_on_the_4090_host_stops_exactly_the_one_job_on_the_node(rtx4090: Site) -> None:
    jobs = rtx4090.fill((1,) * 8)
    where = {rtx4090.topod.job(job).gpu_indices[0]: job for job in jobs}
    serve = rtx4090.submit("serve", SERVER, "--priority", "high", "--affinity", "numa", "--gpus", "1")
    view = rtx4090.topod.wait(serve, "running")
    [gpu] = view.gpu_indices
    assert rtx4090.told(jobs) == [where[gpu]]
    node = rtx4090.host.gpus[gpu].numa_node
    [cpus] = [numa.cpus for numa in rtx4090.host.numa_nodes if numa.id == node]
    assert CpuSet.parse(view.cpu_list) <= cpus
    assert view.cpu_list


def test_socket_affinity_on_the_4090_host_keeps_to_one_socket(rtx4090: Site) -> None:
    jobs = rtx4090.fill((1,) * 8)
    serve = rtx4090.submit("serve", SERVER, "--priority", "high", "--affinity", "socket", "--gpus", "4")
    view = rtx4090.topod.wait(serve, "running")
    cpus = CpuSet.parse(view.cpu_list)
    assert len([socket for socket in rtx4090.host.sockets if socket.cpus & cpus]) == 1
    assert len(rtx4090.told(jobs)) == 4


def test_a_shortage_of_cpus_alone_stops_the_job_that_holds_them(rtx4090: Site) -> None:
    batch = rtx4090.submit("cpus", TRAINER, "--priority", "low", "--cpus", "120")
    assert rtx4090.topod.wait(batch, "running").state == "running"
    rtx4090.topod.until(lambda: "attempt 1" in rtx4090.log(batch))
    serve = rtx4090.submit("serve", SERVER, "--priority", "high", "--gpus", "1", "--cpus", "16")
    view = rtx4090.topod.wait(serve, "running")
    assert view.state == "running"
    assert rtx4090.told([batch]) == [batch]
    assert len(CpuSet.parse(view.cpu_list)) == 16


@pytest.mark.parametrize("passage", [6, 14, 22, 30])
def test_a_preemption_goes_on_after_sigkill_of_the_daemon(dgx1: Site, passage: int) -> None:
    jobs = dgx1.fill((2, 1, 2, 1, 2))
    dgx1.topod.kill()
    dgx1.start("--crash-at", str(passage))
    request = ("--priority", "high", "--affinity", "nvlink", "--gpus", "4")
    # The daemon may die before it has answered; the token of `topoctl submit` is not kept for us then.
    dgx1.topoctl("submit", "--name", "serve", *request, *dgx1.image, "--", "sh", "-c", SERVER, check=False)
    assert dgx1.topod.crashed(timeout=20), "it did not come to the crash"
    dgx1.start()
    found = [
        view["id"] for view in json.loads(dgx1.topoctl("ps", "-a", "-o", "json")) if view["name"] == "serve"
    ]
    serve = found[0] if found else dgx1.submit("serve", SERVER, *request)
    view = dgx1.topod.wait(serve, "running")
    assert (view.state, view.starts) == ("running", 1)
    told = dgx1.told(jobs)
    assert len(told) == 2
    dgx1.topoctl("cancel", str(serve))
    for job in told:
        done = dgx1.topod.wait(job)
        assert (done.state, done.starts) == ("succeeded", 2)

"""With a real engine: the processes of jobs' containers are told from those of other containers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import PrivateEngine
from tests.integration.daemon_process import Topod
from topod.protocol.replies import Host
from topod.protocol.requests import GetHost
from topod.protocol.views import GpuView

pytestmark = pytest.mark.docker
FOREVER = ("sh", "-c", "sh -c 'sleep 600; true'; true")


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    return tmp_path / "faults.toml"


@pytest.fixture
def topod(tmp_path: Path, engine: PrivateEngine, faults: Path) -> Iterator[Topod]:
    (tmp_path / "topod.toml").write_text("[health]\ninterval = 0.2\n")
    environment = {"TOPOD_CONFIG": str(tmp_path / "topod.toml"), "TOPOD_EMULATED_FAULTS": str(faults)}
    with Topod(
        tmp_path / "t", host="hgx-h100", runtime="docker", engine=engine.base_url, environment=environment
    ) as topod:
        yield topod.start()


def gpus(topod: Topod) -> list[GpuView]:
    reply = topod.ask(GetHost())
    assert isinstance(reply, Host)
    return reply.host.gpus


def processes(engine: PrivateEngine, name: str) -> list[int]:
    client = engine.client()
    try:
        top = client.containers.get(name).top(ps_args="-eo pid")
    finally:
        client.close()
    return [int(row[0]) for row in top["Processes"]]


def test_a_container_of_somebody_else_is_foreign_and_one_of_a_job_is_not(
    topod: Topod, engine: PrivateEngine, faults: Path
) -> None:
    job = topod.submit(*FOREVER, image=engine.image, gpus=1, cpus=0)
    handle = topod.wait(job.id, "running").handle
    assert handle is not None
    client = engine.client()
    stranger = client.containers.run(engine.image, list(FOREVER), detach=True, name="stranger")
    try:
        own, others = processes(engine, handle), processes(engine, "stranger")
        lines = [f"[gpu.0]\nprocess = [{_listed(own)}]", f"[gpu.1]\nprocess = [{_listed(others[-1:])}]"]
        faults.with_suffix(".new").write_text("\n".join(lines))
        faults.with_suffix(".new").replace(faults)
        topod.until(lambda: gpus(topod)[1].state == "foreign")
        words = gpus(topod)[1].reason
        assert words.startswith(f"foreign: pid {others[-1]} (")
        assert f"container {str(stranger.id)[:12]})" in words
        assert (gpus(topod)[0].state, gpus(topod)[0].reason) == ("held", "")
    finally:
        stranger.remove(force=True)
        client.close()
    topod.stop()
    topod.start()  # who is whose is known anew
    topod.until(lambda: gpus(topod)[1].reason.startswith(f"foreign: pid {others[-1]} "))
    assert gpus(topod)[0].reason == ""


def _listed(pids: list[int]) -> str:
    return ", ".join(f"{{pid = {pid}, mib = 500}}" for pid in pids)

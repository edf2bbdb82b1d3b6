"""Output without end: what is kept is bounded, and whoever reads it learns what is missing."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine import PrivateEngine
from tests.integration.daemon_process import Topod
from tests.integration.test_cli import Cli
from tests.integration.test_runtime_contract import MACHINE, NOTHING
from topod.adapters.docker_runtime import DockerRuntime
from topod.adapters.process_runtime import ProcessRuntime
from topod.adapters.process_shim import trim
from topod.daemon.joblog import read_piece
from topod.model.job import JobId, JobSpec
from topod.ports import ContainerRuntime, ContainerStatus
from topod.protocol.replies import LogChunk
from topod.protocol.requests import ReadLog

MIB = 1 << 20
MOST = MIB + MIB // 8
LINE = "x" * 1000
SECONDS = 60.0


def taken(path: Path) -> int:
    return path.stat().st_blocks * 512


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "process"])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ContainerRuntime]:
    made: ContainerRuntime
    if request.param == "docker":
        engine: PrivateEngine = request.getfixturevalue("engine")
        made = DockerRuntime(
            base_url=engine.base_url,
            state_id="logbounds",
            log_dir=tmp_path / "logs",
            machine_cpus=MACHINE,
            emulated=True,
            network_mode="none",
            log_bytes=MIB,
        )
    else:
        made = ProcessRuntime(
            root=tmp_path / "state",
            state_id="t1",
            log_dir=tmp_path / "logs",
            machine_cpus=MACHINE,
            emulated=True,
            log_bytes=MIB,
        )
    yield made
    for seen in made.observe():
        made.remove(seen.handle)
    made.close()


def run(runtime: ContainerRuntime, script: str) -> str:
    spec = JobSpec(name="t", command=("sh", "-c", script), image="bb:latest")
    handle = runtime.create(JobId(1), 1, spec, NOTHING)
    runtime.start(handle)
    return handle


def test_of_a_long_output_about_the_last_part_is_kept(runtime: ContainerRuntime) -> None:
    handle = run(runtime, f"yes {LINE} | head -n 12000; echo the end")
    until(lambda: all(seen.status is ContainerStatus.EXITED for seen in runtime.observe()))
    runtime.remove(handle)
    path = runtime.log_path(JobId(1), 1)
    size = 12000 * 1001 + len("the end\n")
    assert path.stat().st_size == size
    assert taken(path) <= MOST
    piece = read_piece(path, 0, MIB)
    assert size - MOST <= piece.skipped == piece.next_offset - len(piece.data)
    assert b"\0" not in piece.data
    assert read_piece(path, -8, 100).data == b"the end\n"


def test_a_job_that_prints_without_end_does_not_fill_the_disk(tmp_path: Path) -> None:
    runtime = ProcessRuntime(
        root=tmp_path / "state",
        state_id="t1",
        log_dir=tmp_path / "logs",
        machine_cpus=MACHINE,
        emulated=True,
        log_bytes=MIB,
    )
    # Slow enough for this machine's disk, without end all the same.
    handle = run(runtime, f"while :; do yes {LINE} | head -n 200; sleep 0.01; done")
    path = runtime.log_path(JobId(1), 1)
    try:
        until(lambda: path.exists() and path.stat().st_size > 30 * MIB)
        until(lambda: taken(path) <= MOST)
    finally:
        runtime.remove(handle)
        runtime.close()
    assert taken(path) <= MOST


def test_trimming_moves_no_position_and_leaves_short_logs_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        os.write(log, b"a" * MIB)
        assert not trim(log, MIB)
        os.write(log, b"b" * (4 * MIB))
        assert trim(log, MIB)
        assert not trim(log, MIB)
        os.write(log, b"the end")
    finally:
        os.close(log)
    assert path.stat().st_size == 5 * MIB + 7
    piece = read_piece(path, 0, 100)
    assert piece.data == b"b" * 100
    assert 3 * MIB < piece.skipped < 5 * MIB
    assert read_piece(path, piece.next_offset, 10).skipped == 0
    assert read_piece(path, 5 * MIB, 100).data == b"the end"
    assert read_piece(path, 99 * MIB, 100).data == b""


def test_who_reads_a_bounded_output_is_told_what_is_missing(tmp_path: Path) -> None:
    config = tmp_path / "topod.toml"
    config.write_text('[logs]\nmax_bytes = "1M"\n')
    with Topod(tmp_path / "t").start("--config", str(config)) as topod:
        job = topod.submit("sh", "-c", f"yes {LINE} | head -n 9000; echo the end")
        topod.wait(job.id)
        assert topod.output(job.id).endswith("x\nthe end\n")
        chunk = topod.ask(ReadLog(job=job.id, offset=0, limit=10))
        assert isinstance(chunk, LogChunk)
        assert chunk.skipped > 7 * MIB
        cli = Cli(topod)
        told = cli.run("logs", str(job.id))
        assert told.stdout.endswith("x\nthe end\n")
        assert (
            told.stderr == f"topoctl: {chunk.skipped / MIB:.1f}M of the output of job 1 are no longer kept\n"
        )
        assert cli.out("logs", "-n", "1", "1") == "the end\n"
        # More lines than one answer holds, all of them there.
        assert len(cli.out("logs", "-n", "700", "1").splitlines()) == 700


def test_output_that_is_no_longer_kept_at_all_is_told(tmp_path: Path) -> None:
    config = tmp_path / "topod.toml"
    config.write_text("[logs]\nkeep_bytes = 1\n")
    with Topod(tmp_path / "t").start() as topod:
        job = topod.submit("echo", "hello")
        topod.wait(job.id)
        assert topod.output(job.id) == "hello\n"
        topod.stop()
        (log,) = (topod.state_dir / "logs").glob("1.1.log")
        os.utime(log, (time.time() - 3600, time.time() - 3600))
        topod.start("--config", str(config))
        topod.until(lambda: not log.exists())
        told = Cli(topod).run("logs", "1")
        assert (told.stdout, told.stderr) == (
            "",
            "topoctl: the output of job 1, attempt 1, is no longer kept\n",
        )

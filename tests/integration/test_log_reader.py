"""Who waits for the output of a job that is being started."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from topod.adapters.sqlite_store import SqliteStore
from topod.daemon import joblog, logreader
from topod.daemon.mailbox import Mailbox
from topod.daemon.service import Identity, Service
from topod.daemon.wiring import SystemClock
from topod.discovery.library import load_library_host
from topod.flextopo.tables import TopologyTables
from topod.lifecycle import events as ev
from topod.lifecycle.states import Stage
from topod.model.job import JobId, JobSpec
from topod.model.request import ResourceRequest
from topod.ports import ContainerRuntime
from topod.protocol import requests as rq
from topod.shell.health import Health

SECONDS = 20.0


def test_a_reader_looks_again_when_the_job_runs_however_long_the_start_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()
    read_piece = joblog.read_piece

    def noted(*arguments: Any) -> joblog.Piece:
        piece = read_piece(*arguments)
        looked.set()
        return piece

    monkeypatch.setattr(joblog, "read_piece", noted)
    monkeypatch.setattr(logreader, "POLL_SECONDS", (1000.0, 1000.0))

    async def play() -> bytes:
        store, health, log = SqliteStore(tmp_path / "state.db"), Health(), tmp_path / "log"
        tables = TopologyTables(load_library_host("one-gpu").topology)
        mailbox = Mailbox(tables, store.load(), store, clock=SystemClock(), health=health)
        identity = Identity(state_dir="", events_endpoint="", notes=(), started_at=0.0)
        runtime = cast("ContainerRuntime", SimpleNamespace(name="process", log_path=lambda *_: log))
        it = Service(mailbox, store, runtime, tables, clock=SystemClock(), health=health, identity=identity)
        mailbox.start(carry_out=lambda _: None, publish=lambda _: None)
        spec = JobSpec(name="t", command=("true",), request=ResourceRequest(gpus=1))
        job = (await mailbox.ask(ev.Submitted(spec=spec))).job
        assert job is not None
        for event in (
            ev.Recovered(containers=()),
            ev.Created(job=job, attempt=1, handle="h"),
            ev.DevicesFree(job=job, attempt=1),
        ):
            await mailbox.post(event)
        await mailbox.until(lambda state: state.jobs[JobId(1)].stage is Stage.LAUNCHING, SECONDS)
        reader = asyncio.create_task(it.logs.read(rq.ReadLog(job=job, wait=SECONDS)))
        assert await asyncio.to_thread(looked.wait, SECONDS)
        log.write_bytes(b"up\n")
        await mailbox.post(ev.Started(job=job, attempt=1, at=0.0))
        try:
            return (await asyncio.wait_for(reader, SECONDS)).data
        finally:
            await mailbox.stop()
            store.close()

    assert asyncio.run(play()) == b"up\n"

"""The owner of the state: durable first, then everything else; a store that fails loses nothing."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from topod.adapters.sqlite_store import SqliteStore
from topod.daemon.mailbox import Decided, Mailbox
from topod.discovery.library import load_library_host
from topod.errors import InternalError, StoreError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle import events as ev
from topod.lifecycle.asking import submitted
from topod.lifecycle.draft import Draft
from topod.lifecycle.effects import Create, Effect
from topod.lifecycle.states import JobState
from topod.model.job import JobId, JobSpec
from topod.model.request import ResourceRequest
from topod.ports import Clock
from topod.protocol.views import EventView
from topod.shell.health import Health

TABLES = TopologyTables(load_library_host("one-gpu").topology)
JOB = JobSpec(name="t", command=("true",), request=ResourceRequest(gpus=1))


class Brittle(SqliteStore):
    """A store whose disk is full as long as `full` is set."""

    full = False

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.looks = threading.Event()

    def check(self, *, thorough: bool) -> None:
        self.looks.set()
        if self.full and thorough:
            raise StoreError("the disk is full")
        super().check(thorough=thorough)

    def commit(self, *args: Any, **kwargs: Any) -> tuple[EventView, ...]:
        if self.full:
            raise StoreError("the disk is full")
        return super().commit(*args, **kwargs)


@dataclass
class Scene:
    mailbox: Mailbox
    store: Brittle
    health: Health
    effects: list[Effect] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - looks at values that no event stands for
                await asyncio.sleep(0.01)


def of_jobs(name: str) -> JobSpec:
    return JobSpec(name=name, command=("true",), request=ResourceRequest(gpus=1))


class SettableClock:
    """A wall clock that goes with the steady one until it is set."""

    set_by = 1_000_000.0

    def now(self) -> float:
        return time.monotonic() + self.set_by


@asynccontextmanager
async def scene(folder: Path, *, recovered: bool = True, clock: Clock | None = None) -> AsyncIterator[Scene]:
    store, health = Brittle(folder / "state.db"), Health()
    mailbox = Mailbox(TABLES, store.load(), store, clock=clock or SettableClock(), health=health)
    it = Scene(mailbox, store, health)
    mailbox.start(carry_out=it.effects.extend, publish=lambda event: it.told.append(event.name))
    if recovered:
        await mailbox.post(ev.Recovered(containers=()))
        await it.until(lambda: mailbox.recovered)
        it.told.clear()
    try:
        yield it
    finally:
        await mailbox.stop()
        store.close()


def test_an_answer_comes_after_the_outcome_is_durable_and_its_effects_after_that(tmp_path: Path) -> None:
    async def play() -> None:
        async with scene(tmp_path) as it:
            done = await it.mailbox.ask(ev.Submitted(spec=JOB))
            assert done.job == 1
            assert it.store.load() == it.mailbox.state == done.state
            assert [type(effect) for effect in it.effects] == [Create]
            assert it.told == ["job.submitted", "job.placed"]

    asyncio.run(play())


def test_a_request_that_cannot_be_stored_is_refused_and_has_not_happened(tmp_path: Path) -> None:
    async def play() -> None:
        async with scene(tmp_path) as it:
            before = it.mailbox.state
            it.store.full = True
            with pytest.raises(StoreError, match="the disk is full"):
                await it.mailbox.ask(ev.Submitted(spec=JOB))
            assert (it.mailbox.state, it.effects, it.told) == (before, [], [])
            assert it.health.notes == [
                "store: the disk is full; nothing new is accepted until it works again"
            ]
            it.store.full = False
            assert (await it.mailbox.ask(ev.Submitted(spec=JOB))).job == 1
            assert it.health.notes == []

    asyncio.run(play())


def test_a_disk_that_is_well_again_is_noticed_although_nobody_asks_for_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topod.daemon.mailbox.LOOK_SECONDS", 0.02)

    async def play() -> None:
        # Also before the runtime was looked at: the engine may be away for long.
        async with scene(tmp_path, recovered=False) as it:
            it.store.full = True
            with pytest.raises(StoreError):
                await it.mailbox.ask(ev.Submitted(spec=JOB))
            generation = it.mailbox.state.generation
            it.store.looks.clear()
            await asyncio.to_thread(it.store.looks.wait, 20)
            assert it.health.notes
            it.store.full = False
            await it.until(lambda: not it.health.notes)
            assert it.store.load().generation == it.mailbox.state.generation == generation

    asyncio.run(play())


def test_a_database_taken_away_is_told_although_nobody_asks_and_nothing_more_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topod.daemon.mailbox.LOOK_SECONDS", 0.02)
    path, aside = tmp_path / "state.db", tmp_path / "aside.db"

    async def play() -> None:
        async with scene(tmp_path) as it:
            await it.mailbox.ask(ev.Submitted(spec=JOB))
            path.rename(aside)
            await it.until(lambda: it.health.notes)
            (note,) = it.health.notes
            assert f"{path} was removed while topod has it open; nothing new is accepted" in note
            assert "stop topod, rename state.db.rescued to state.db" in note
            with pytest.raises(StoreError, match="was removed"):
                await it.mailbox.ask(ev.Submitted(spec=JOB))
            # The very same file comes back: all goes on, and the copy would soon be too old to be of use.
            aside.rename(path)
            await it.until(lambda: not it.health.notes)
            assert (await it.mailbox.ask(ev.Submitted(spec=JOB))).job == 2
            assert not (tmp_path / "state.db.rescued").exists()

    asyncio.run(play())


def test_what_the_world_reports_while_the_disk_is_full_is_kept_in_order(tmp_path: Path) -> None:
    async def play() -> None:
        async with scene(tmp_path) as it:
            await it.mailbox.ask(ev.Submitted(spec=JOB))
            it.store.full = True
            job = JobId(1)
            for event in (
                ev.Created(job=job, attempt=1, handle="c"),
                ev.DevicesFree(job=job, attempt=1),
                ev.Started(job=job, attempt=1, at=1000.0),
                ev.Exited(job=job, attempt=1, exit_code=0),
                ev.Collected(job=job, attempt=1),
            ):
                await it.mailbox.post(event)
            await it.until(lambda: it.health.notes)
            assert it.mailbox.state.jobs[job].state is JobState.STARTING
            it.store.full = False
            await it.until(lambda: not it.mailbox.state.jobs)
            ended = it.store.job(1)
            assert ended is not None
            assert (ended.state, ended.exit_code) == (JobState.SUCCEEDED, 0)

    asyncio.run(play())


def test_before_the_runtime_was_looked_at_jobs_are_queued_and_nothing_is_done(tmp_path: Path) -> None:
    async def play() -> None:
        async with scene(tmp_path, recovered=False) as it:
            await it.mailbox.ask(ev.Submitted(spec=JOB))
            assert it.effects == []
            await it.mailbox.post(ev.Recovered(containers=()))
            await it.until(lambda: it.effects)
            assert [type(effect) for effect in it.effects] == [Create]

    asyncio.run(play())


def test_a_token_makes_one_job_of_two_submits(tmp_path: Path) -> None:
    async def play() -> None:
        async with scene(tmp_path) as it:
            asked = [it.mailbox.ask(ev.Submitted(spec=JOB), token="x") for _ in range(5)]
            assert {done.job for done in await asyncio.gather(*asked)} == {1}
            assert it.mailbox.state.next_job == 2

    asyncio.run(play())


def test_a_defect_in_the_core_costs_one_answer_and_not_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with scene(tmp_path) as it:
            with monkeypatch.context() as patch:
                patch.setattr("topod.daemon.mailbox.step_all", lambda *_, **__: 1 / 0)
                with pytest.raises(InternalError, match="ZeroDivisionError"):
                    await it.mailbox.ask(ev.Submitted(spec=JOB))
            assert (await it.mailbox.ask(ev.Submitted(spec=JOB))).job == 1

    asyncio.run(play())


def test_what_comes_while_a_commit_is_made_shares_the_next_one(tmp_path: Path) -> None:
    async def play() -> None:
        async with scene(tmp_path) as it:
            before = it.mailbox.state.generation
            names = [f"j{number}" for number in range(100)]
            asked = [it.mailbox.ask(ev.Submitted(spec=of_jobs(name)), token=name) for name in names]
            decided = await asyncio.gather(*asked)
            # Each asker is told its own job, and one transaction served them all.
            jobs = it.mailbox.state.jobs
            assert [jobs[done.jobs[0]].spec.name for done in decided] == names
            assert it.mailbox.state.generation == before + 1
            assert it.store.submitted(names) == {
                name: done.job for name, done in zip(names, decided, strict=True)
            }
            assert it.told.count("job.submitted") == 100
            assert it.told.count("job.placed") == 1

    asyncio.run(play())


def test_a_defect_at_one_event_costs_its_neighbours_in_the_bunch_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(draft: Draft, event: ev.Submitted) -> None:
        submitted(draft, event)
        if event.spec.name == "bad":
            raise ZeroDivisionError

    async def play() -> None:
        async with scene(tmp_path) as it:
            monkeypatch.setattr("topod.lifecycle.machine.submitted", failing)
            names = ["a", "bad", "b"]
            asked = [it.mailbox.ask(ev.Submitted(spec=of_jobs(name)), token=name) for name in names]
            told = await asyncio.gather(*asked, return_exceptions=True)
            assert isinstance(told[1], InternalError)
            kept = [done for done in told if isinstance(done, Decided)]
            assert [it.mailbox.state.jobs[done.jobs[0]].spec.name for done in kept] == ["a", "b"]
            assert set(it.store.submitted(names)) == {"a", "b"}
            assert len(it.mailbox.state.jobs) == 2

    asyncio.run(play())


def test_reports_and_requests_that_fail_together_keep_their_order_until_the_disk_works(
    tmp_path: Path,
) -> None:
    async def play() -> None:
        async with scene(tmp_path) as it:
            await it.mailbox.ask(ev.Submitted(spec=JOB))
            it.store.full = True
            job = JobId(1)
            await it.mailbox.post(ev.Created(job=job, attempt=1, handle="c"))
            refused = asyncio.create_task(it.mailbox.ask(ev.Submitted(spec=JOB)))
            await it.mailbox.post(ev.DevicesFree(job=job, attempt=1))
            await it.mailbox.post(ev.Started(job=job, attempt=1, at=1000.0))
            with pytest.raises(StoreError):
                await refused
            assert it.mailbox.state.jobs[job].state is JobState.STARTING
            it.store.full = False
            await it.until(lambda: it.mailbox.state.jobs[job].state is JobState.RUNNING)
            assert set(it.mailbox.state.jobs) == {job}

    asyncio.run(play())


def test_a_clock_that_is_set_is_noticed_before_the_next_event(tmp_path: Path) -> None:
    async def play() -> None:
        clock = SettableClock()
        async with scene(tmp_path, clock=clock) as it:
            await it.mailbox.ask(ev.Submitted(spec=JOB))
            submitted_at = it.mailbox.state.jobs[JobId(1)].submitted_at
            it.told.clear()
            clock.set_by += 3600.0
            await it.mailbox.ask(ev.HostDrained(reason="x"))
            assert it.told[:2] == ["clock.set", "host.drained"]
            moved = it.mailbox.state.jobs[JobId(1)].submitted_at - submitted_at
            assert abs(moved - 3600.0) < 1.0
            it.told.clear()
            await it.mailbox.ask(ev.HostResumed())
            assert it.told[0] == "host.resumed"

    asyncio.run(play())


def test_a_run_of_the_queue_that_was_put_off_comes_without_a_further_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with scene(tmp_path) as it:
            loop = asyncio.get_running_loop()
            monkeypatch.setattr("topod.daemon.pacing.LONG_QUEUE", 0)
            await it.mailbox.ask(ev.Submitted(spec=JOB))
            await it.mailbox.ask(ev.Submitted(spec=JOB))
            it.effects.clear()
            # As if the last run of the queue had taken 0.1 s.
            it.mailbox._pacer.stepped(loop.time() - 0.1, loop.time(), queued=True)
            done = await it.mailbox.ask(ev.Submitted(spec=JOB))
            assert done.job == 3
            assert done.state.jobs[JobId(3)].reason == "queued"
            assert it.mailbox._pacer.owed
            await it.until(lambda: not it.mailbox._pacer.owed)
            assert it.mailbox.state.jobs[JobId(3)].reason == it.mailbox.state.jobs[JobId(2)].reason

    asyncio.run(play())

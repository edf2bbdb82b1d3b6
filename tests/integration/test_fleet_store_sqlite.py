"""What only the memory in a file must do: damage is told, SIGKILL loses nothing, old things are forgotten."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.fleet_memories import full_job, outcome, plain_job
from topod.adapters.sqlite_fleet import SqliteFleet
from topod.adapters.sqlite_store import SqliteStore
from topod.errors import StoreError
from topod.fleet.outcome import FleetNotice
from topod.fleet.states import (
    FleetJobState,
    FleetState,
)


def test_jobs_that_ended_long_ago_are_forgotten_some_at_a_time_and_no_other(tmp_path: Path) -> None:
    with contextlib.closing(SqliteFleet(tmp_path / "fleet.db")) as store:
        jobs = [plain_job(ident) for ident in range(1, 8)]
        notices = tuple(FleetNotice(name="job.submitted", text="", job=job.id) for job in jobs)
        made = outcome(FleetState(), *jobs, notices=notices)
        store.commit(FleetState(), made, now=1.0, tokens={f"t{job.id}": job.id for job in jobs})
        ended = [replace(job, state=FleetJobState.FAILED, ended_at=10.0 * job.id) for job in jobs[:6]]
        done = outcome(made.state, *ended, notices=notices)
        store.commit(made.state, done, now=50.0)
        assert store.forget(45.0, 3) == 6
        assert [job.id for job in store.ended_jobs(9)] == [4, 5, 6]
        assert [store.forget(45.0, 3) for _ in range(3)] == [4, 1, 0]
        assert [job.id for job in store.ended_jobs(9)] == [5, 6]
        assert sorted(store.submitted([f"t{n}" for n in range(1, 8)])) == ["t5", "t6", "t7"]
        assert [event.seq for event in store.events(0, 99)] == list(range(8, 15))
        assert store.load() == done.state


def test_a_file_of_a_newer_topod_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    SqliteFleet(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer topod: schema 99"):
        SqliteFleet(path)


def test_a_damaged_file_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        SqliteFleet(path)
    assert path.read_bytes() == b"no database" * 1000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE jobs SET body = '{'", "damaged at job 7"),
        ("UPDATE fleet SET next_job = 7", "would hand out 7 next"),
        ("UPDATE fleet SET next_fence = 5", "holds fence 5"),
    ],
)
def test_contents_that_cannot_be_are_refused_in_words(tmp_path: Path, change: str, words: str) -> None:
    path = tmp_path / "fleet.db"
    store = SqliteFleet(path)
    store.commit(FleetState(), outcome(FleetState(), full_job()), now=1.0)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    connection.close()
    store = SqliteFleet(path)
    with pytest.raises(StoreError, match=words):
        store.load()
    store.close()


def test_the_database_of_a_host_is_not_taken_for_that_of_a_fleet(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "state.db").close()
    with pytest.raises(StoreError, match="belongs to a host"):
        SqliteFleet(tmp_path / "state.db")
    SqliteFleet(tmp_path / "fleet.db").close()
    with pytest.raises(StoreError, match="belongs to a fleet"):
        SqliteStore(tmp_path / "fleet.db")


def test_what_was_committed_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    work = f"""
import itertools
from pathlib import Path
from topod.adapters.sqlite_fleet import SqliteFleet
from tests.integration.fleet_memories import outcome, plain_job
store = SqliteFleet(Path({str(path)!r}))
state = store.load()
for number in itertools.count(1):
    made = outcome(state, plain_job(number))
    store.commit(state, made, now=1.0)
    state = made.state
    print(number, flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", work], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    for told in process.stdout:
        if int(told) == 20:
            break
    os.kill(process.pid, signal.SIGKILL)
    told_last = [told, *process.stdout][-1]
    process.wait()
    process.stdout.close()
    store = SqliteFleet(path)
    state = store.load()
    store.close()
    assert len(state.jobs) >= int(told_last)
    assert sorted(state.jobs) == list(range(1, len(state.jobs) + 1))

"""The state database: what goes in comes out, and a crash leaves whole transactions."""

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from topod.adapters.sqlite_store import SqliteStore
from topod.errors import StoreError
from topod.lifecycle.effects import Notice
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import HostState, Job, JobState, Mark, MarkKind, Stop, StopCause, StopPhase
from topod.model.cpuset import CpuSet
from topod.model.job import Allocation, CheckpointHook, JobId, JobSpec, Mount
from topod.model.request import AUTO, Affinity, ResourceRequest


def full_job(ident: int = 7, state: JobState = JobState.STOPPING) -> Job:
    return Job(
        id=JobId(ident),
        spec=JobSpec(
            name="träin ✓",
            command=("sh", "-c", "echo 'a\nb'"),
            user="alice",
            env={"A": "1"},
            mounts=(Mount(source="/a", target="/b"),),
            checkpoint=CheckpointHook(command=("save",)),
            request=ResourceRequest(gpus=2, affinity=Affinity.NVLINK, cpus=AUTO),
        ),
        state=state,
        submitted_at=1.5,
        attempt=3,
        allocation=Allocation(gpus=("GPU-a", "GPU-b"), gpu_indices=(0, 1), cpus=CpuSet.parse("0-3,8")),
        handle="c0ffee",
        victims=(JobId(2), JobId(5)),
        plan={"gpus": [0, 1], "cost": {"victims": [[100, 1]]}},
        stop=Stop(
            cause=StopCause.PREEMPT,
            by=JobId(9),
            reason="for job 9",
            since=2.0,
            phase=StopPhase.TERM,
            deadline=32.0,
        ),
    )


def commit(store: SqliteStore, base: HostState, *jobs: Job, notices: tuple[Notice, ...] = ()) -> HostState:
    state = replace(
        base,
        generation=base.generation + 1,
        next_job=JobId(max([base.next_job, *(job.id + 1 for job in jobs)])),
        jobs={**base.jobs, **{job.id: job for job in jobs}},
    )
    store.commit(base, Outcome(state=state, changed=jobs, notices=notices), now=10.0)
    return state


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def test_a_new_database_holds_the_first_state(path: Path) -> None:
    store = SqliteStore(path)
    assert store.load() == HostState()
    store.close()


def test_every_field_of_a_job_and_of_the_host_survives_a_restart(path: Path) -> None:
    store = SqliteStore(path)
    mark = Mark(kind=MarkKind.QUARANTINED, reason="stuck", since=3.0, job=JobId(7))
    state = HostState(
        generation=1,
        next_job=JobId(8),
        jobs={JobId(7): full_job()},
        marks={"GPU-a": (mark,)},
        drain="new fans",
    )
    store.commit(HostState(), Outcome(state=state, changed=(full_job(),)), now=1.0)
    store.close()
    again = SqliteStore(path)
    assert again.load() == state
    again.close()


def test_a_job_that_was_put_to_rest_is_history_and_its_id_stays_used(path: Path) -> None:
    store = SqliteStore(path)
    state = commit(store, HostState(), full_job(7))
    ended = replace(full_job(7, JobState.SUCCEEDED), ended_at=50.0)
    rest = replace(state, generation=2, jobs={})
    store.commit(state, Outcome(state=rest, changed=(ended,)), now=50.0)
    store.close()
    again = SqliteStore(path)
    assert again.load() == rest
    assert again.load().next_job == 8
    assert again.job(7) == ended
    assert again.ended_jobs(10) == (ended,)
    assert again.ended_jobs(10, user="bob") == ()
    again.close()


def test_a_job_that_never_was_is_none_whatever_the_number(path: Path) -> None:
    store = SqliteStore(path)
    assert [store.job(ident) for ident in (0, -1, 12, 1 << 63, 1 << 70)] == [None] * 5
    store.close()


def test_events_are_numbered_without_gaps_also_after_a_failed_commit(path: Path) -> None:
    store = SqliteStore(path)
    notices = tuple(Notice(name=f"n{i}", job=JobId(i % 2 + 1), text="t", data=(("i", i),)) for i in range(4))
    state = commit(store, HostState(), notices=notices)
    with pytest.raises(StoreError, match="generation 99 is gone"):
        store.commit(
            HostState(generation=99), Outcome(state=HostState(generation=100), notices=notices), now=1.0
        )
    commit(store, state, notices=notices[:1])
    assert [event.seq for event in store.events(0, 100)] == [1, 2, 3, 4, 5]
    assert [event.name for event in store.events(-2, 100)] == ["n3", "n0"]
    assert store.events(1 << 63, 100) == store.events(0, 100, 1 << 63) == store.events(0, 100, -1 << 64) == ()
    assert [event.data["i"] for event in store.events(1, 2)] == [1, 2]
    assert [event.seq for event in store.events(0, 100, job=2)] == [2, 4]
    store.close()


def test_a_commit_that_fails_half_way_changes_nothing(path: Path) -> None:
    store = SqliteStore(path)
    state = commit(store, HostState(), full_job(1))
    bad = Notice(name="n", job=None, text="t", data=(("what", object()),))
    with pytest.raises(NotImplementedError):
        commit(store, state, full_job(2), notices=(bad,))
    assert store.load() == state
    commit(store, state, full_job(2))
    store.close()


def test_a_token_leads_to_its_job_after_a_restart(path: Path) -> None:
    store = SqliteStore(path)
    state = HostState(generation=1, next_job=JobId(2), jobs={JobId(1): full_job(1)})
    store.commit(HostState(), Outcome(state=state, changed=(full_job(1),)), now=1.0, tokens={"abc": JobId(1)})
    store.close()
    again = SqliteStore(path)
    assert again.submitted(["abc", "abd"]) == {"abc": 1}
    again.close()


def test_an_instance_has_one_name_for_ever(path: Path) -> None:
    store = SqliteStore(path)
    name = store.instance
    store.close()
    again = SqliteStore(path)
    assert again.instance == name
    again.close()


def test_a_database_of_a_newer_topod_is_refused_and_names_both_versions(path: Path) -> None:
    SqliteStore(path).close()
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA user_version = 41")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"schema 41, this topod knows \d+$"):
        SqliteStore(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["text", "page", "body"])
def test_a_damaged_database_is_refused_in_one_line_and_left_alone(path: Path, damage: str) -> None:
    if damage == "text":
        path.write_bytes(b"this is no database, it is a letter\n" * 400)
    else:
        store = SqliteStore(path)
        commit(store, HostState(), *(full_job(ident) for ident in range(1, 60)))
        store.close()
        if damage == "page":
            data = bytearray(path.read_bytes())
            data[4096 : 4096 + 2048] = b"\xff" * 2048
            path.write_bytes(data)
        else:
            raw = sqlite3.connect(path)
            raw.execute("UPDATE jobs SET body = '{\"id\": 3}' WHERE id = 3")
            raw.commit()
            raw.close()
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        _open_and_load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def _open_and_load(path: Path) -> None:
    store = SqliteStore(path)
    try:
        store.load()
    finally:
        store.close()


def test_a_reader_does_not_hold_up_a_commit(path: Path) -> None:
    store = SqliteStore(path)
    state = commit(store, HostState(), full_job(1))
    cursor = store._reader.execute("SELECT id FROM jobs")
    commit(store, state, full_job(2))
    assert cursor.fetchall() == [(1,)]
    store.close()


_WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.integration.test_store import full_job
from topod.adapters.sqlite_store import SqliteStore
from topod.lifecycle.effects import Notice
from topod.lifecycle.outcome import Outcome
from topod.model.job import JobId

store = SqliteStore(Path(sys.argv[1]))
state = store.load()
print(state.generation, flush=True)
while True:
    job = replace(full_job(state.next_job), attempt=state.generation + 1)
    jobs = {ident: replace(old, attempt=state.generation + 1) for ident, old in list(state.jobs.items())[-3:]}
    jobs[job.id] = job
    base, state = state, replace(
        state, generation=state.generation + 1, next_job=JobId(job.id + 1), jobs=jobs
    )
    gone = tuple(old for ident, old in base.jobs.items() if ident not in jobs)
    notice = Notice(name="n", job=job.id, text="t", data=(("generation", state.generation),))
    store.commit(base, Outcome(state=state, changed=(*jobs.values(), *gone), notices=(notice,)), now=1.0)
    print(state.generation, flush=True)
"""


def test_a_killed_writer_leaves_whole_commits_only(path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    for kill_after in (1, 7, 30):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, path],
            stdout=subprocess.PIPE,
            cwd=root,
            env={**os.environ, "PYTHONPATH": "."},
        ) as writer:
            assert writer.stdout is not None
            told = [int(writer.stdout.readline()) for _ in range(kill_after + 1)]
            writer.send_signal(signal.SIGKILL)
            told += [int(line) for line in writer.stdout.read().split()]
        store = SqliteStore(path)
        state = store.load()
        # What was reported as durable is; the one commit in flight may be as well.
        assert state.generation in (told[-1], told[-1] + 1)
        assert {job.attempt for job in state.jobs.values()} == {state.generation}
        assert state.next_job == state.generation + 1
        last = store.events(-1, 1)[0]
        assert (last.seq, last.data["generation"]) == (state.generation, state.generation)
        assert store.job(state.next_job - 1) is not None
        store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_fails_the_commit_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", small], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    store = SqliteStore(small / "state.db")
    try:
        state = commit(store, HostState(), full_job(1))
        filler = small / "filler"
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        committed: list[HostState] = []
        with pytest.raises(StoreError, match="disk is full") as caught:
            commit_for_ever(store, state, committed)
        assert "free some space" in str(caught.value.hint)
        state = committed[-1] if committed else state
        assert store.load() == state
        with pytest.raises(StoreError, match="No space left"):
            store.check(thorough=True)
        filler.unlink()
        store.check(thorough=True)
        state = commit(store, state, full_job(300))
        store.close()
        store = SqliteStore(small / "state.db")
        assert store.load() == state
    finally:
        store.close()
        subprocess.run(["umount", small], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def commit_for_ever(store: SqliteStore, state: HostState, committed: list[HostState]) -> None:
    for ident in range(2, 250):
        state = commit(store, state, full_job(ident))
        committed.append(state)


def test_old_jobs_and_events_are_forgotten_and_their_ids_are_not_used_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    ended = replace(full_job(1, JobState.SUCCEEDED), ended_at=5.0)
    late = replace(full_job(2, JobState.FAILED), ended_at=500.0)
    open_ = full_job(3)
    state = commit(store, HostState(), ended, late, open_, notices=(Notice(name="a", job=None, text="b"),))
    rest = replace(state, generation=state.generation + 1, jobs={JobId(3): open_})
    store.commit(state, Outcome(state=rest, changed=(ended, late)), now=10.0)
    assert store.forget(100.0, 50) == 2
    assert store.forget(100.0, 50) == 0
    assert store.job(1) is None
    assert store.job(2) == late
    assert store.events(0, 10) == ()
    assert store.load() == rest
    store.close()


def _refused(store: SqliteStore, state: HostState) -> StoreError:
    with pytest.raises(StoreError) as caught:
        commit(store, state, full_job(8))
    assert caught.value.hint is not None
    return caught.value


@pytest.mark.parametrize("name", ["state.db", "state.db-wal"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_taken_away_refuses_every_commit_and_what_was_known_is_kept(
    path: Path, name: str, replaced: bool
) -> None:
    store = SqliteStore(path)
    state = commit(store, HostState(), full_job(7))
    taken = path.with_name(name)
    taken.unlink()
    if replaced:
        taken.write_bytes(b"")
    refused = _refused(store, state)
    assert refused.message == f"{taken} was {'replaced' if replaced else 'removed'} while topod has it open"
    assert "stop topod, rename state.db.rescued to state.db, remove state.db-wal" in str(refused.hint)
    # Reading goes on, and the refused commit left nothing behind.
    assert store.load() == state
    store.close()

    with pytest.raises(StoreError, match="was taken from a running topod") as caught:
        SqliteStore(path)
    assert "rename state.db.rescued to state.db" in str(caught.value.hint)
    copy = path.with_name("state.db.rescued")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in path.parent.iterdir() if "rescued" in file.name) == [copy.name]
    copy.rename(path)
    for beside in ("state.db-wal", "state.db-shm"):
        path.with_name(beside).unlink(missing_ok=True)
    store = SqliteStore(path)
    assert store.load() == state
    store.close()


def test_a_file_taken_away_in_the_middle_of_a_commit_takes_nothing_with_it(path: Path) -> None:
    store = SqliteStore(path)
    state = commit(store, HostState(), full_job(7))

    def taken_away(statement: str) -> None:
        if statement.startswith("INSERT INTO jobs"):
            path.unlink(missing_ok=True)

    store._writer.set_trace_callback(taken_away)
    _refused(store, state)
    store.close()
    path.with_name("state.db.rescued").rename(path)
    path.with_name("state.db-wal").unlink(missing_ok=True)
    store = SqliteStore(path)
    assert store.load() == state
    store.close()


def test_what_cannot_be_copied_is_told_not_to_be_ended_and_tried_again(tmp_path: Path) -> None:
    folder, aside = tmp_path / "state", tmp_path / "aside"
    folder.mkdir()
    store = SqliteStore(folder / "state.db")
    state = commit(store, HostState(), full_job(7))
    folder.rename(aside)
    assert "do not stop topod" in str(_refused(store, state).hint)
    folder.mkdir()
    assert "state.db.rescued" in str(_refused(store, state).hint)
    store.close()
    (folder / "state.db.rescued").rename(folder / "state.db")
    store = SqliteStore(folder / "state.db")
    assert store.load() == state
    store.close()

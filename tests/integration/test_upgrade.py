"""Databases of earlier topods: brought forward all at once, kept as they were; those of newer ones are left alone."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.small_disk import small_disk
from topod.adapters import sqlite_upgrade
from topod.adapters.sqlite_fleet import SqliteFleet
from topod.adapters.sqlite_store import SqliteStore
from topod.adapters.sqlite_upgrade import COPIES_KEPT, copy_of
from topod.errors import NewerStateError, StoreError

STORES = Path(__file__).parent / "stores"
"""Written by topods of those schemas, at the time."""
HOST_NOW = 4


def earlier(path: Path, name: str) -> Path:
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript((STORES / f"{name}.sql").read_text(encoding="utf-8"))
        raw.execute("PRAGMA journal_mode = WAL")
    path.chmod(0o600)
    return path


def dumped(path: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [*raw.iterdump(), f"schema {raw.execute('PRAGMA user_version').fetchone()[0]}"]


def names(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir() if not one.name.endswith(("-wal", "-shm")))


@pytest.mark.parametrize("schema", [1, 2, 3, 4])
def test_what_a_host_of_an_earlier_topod_knew_is_known_after_the_upgrade(tmp_path: Path, schema: int) -> None:
    path = earlier(tmp_path / "state.db", f"host-{schema}")
    before = dumped(path)
    with closing(SqliteStore(path)) as store:
        state = store.load()
        assert (list(state.jobs), state.drain, state.next_job) == ([7], "weekend", 8)
        assert [mark.reason for mark in state.marks["GPU-a"]] == ["stuck"]
        assert [job.id for job in store.ended_jobs(9)] == [3]
        assert store.submitted(["t"]) == {"t": 7}
        assert [event.name for event in store.events(0, 9)] == ["job.preempted"]
    if schema == HOST_NOW:
        assert names(path) == ["state.db"]
        return
    copy = copy_of(path, schema)
    assert names(path) == ["state.db", copy.name]
    assert dumped(copy) == before
    assert copy.stat().st_mode == path.stat().st_mode
    assert dumped(path)[-1] == f"schema {HOST_NOW}"
    # The copy is a database of its own, which the same topod takes when it is put back.
    path.unlink()
    copy.rename(path)
    with closing(SqliteStore(path)) as store:
        assert store.load() == state


def test_what_a_fleet_of_an_earlier_topod_knew_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = earlier(tmp_path / "fleet.db", "fleet-1")
    with closing(SqliteFleet(path)) as store:
        state = store.load()
        assert (list(state.jobs), list(state.hosts), state.next_fence) == ([7], ["a"], 6)
    before = dumped(path)
    now = sqlite_upgrade._scripts("fleet")
    coming = {**now, max(now) + 1: "ALTER TABLE fleet ADD COLUMN motto TEXT;"}
    monkeypatch.setattr(sqlite_upgrade, "_scripts", lambda _: coming)
    with closing(SqliteFleet(path)) as store:
        assert store.load() == state
        assert str(store.upgrade) == f"schema 1 to 2; as it was: {copy_of(path, 1)}"
    assert dumped(copy_of(path, 1)) == before


def test_the_newest_copies_are_kept(tmp_path: Path) -> None:
    path = earlier(tmp_path / "state.db", "host-3")
    for age, schema in enumerate([9, 8, 7, 6], start=1):
        copy_of(path, schema).touch()
        os.utime(copy_of(path, schema), (1000 - age, 1000 - age))
    copy_of(path, 3).touch()
    (tmp_path / "state.db.schema-of-mine").touch()
    SqliteStore(path).close()
    kept = [copy_of(path, schema).name for schema in (3, 8, 9)]
    assert len(kept) == COPIES_KEPT
    assert names(path) == ["state.db", *kept, "state.db.schema-of-mine"]
    assert dumped(copy_of(path, 3))[-1] == "schema 3"


def test_a_newer_database_is_refused_untouched_with_the_way_back(tmp_path: Path) -> None:
    path = earlier(tmp_path / "state.db", "host-3")
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA user_version = 41")
    # A whole folder in which nothing may be written, by whomever.
    known = {one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in tmp_path.iterdir()}
    with pytest.raises(NewerStateError, match=r"schema 41, this topod knows \d+$") as refused:
        SqliteStore(path)
    assert "put state.db.schema-3 in its place" in str(refused.value.hint)
    assert {one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in tmp_path.iterdir()} == known


@pytest.mark.parametrize(("daemon", "file"), [("daemon", "state.db"), ("coordinator", "fleet.db")])
def test_an_older_daemon_ends_with_one_line(tmp_path: Path, daemon: str, file: str) -> None:
    path = earlier(tmp_path / file, "host-1" if daemon == "daemon" else "fleet-1")
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA user_version = 41")
    before = path.read_bytes()
    words = ["--state-dir", str(tmp_path), "--socket", str(tmp_path / "s.sock")]
    if daemon == "daemon":
        words += ["--host", "dgx1", "--runtime", "process"]
    done = subprocess.run(
        [sys.executable, "-m", f"topod.{daemon}", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 74
    error, *_, hint = done.stderr.splitlines()
    assert error.startswith(f"error: {path} was written by a newer topod: schema 41, this topod knows ")
    assert hint == "hint: start the newer topod, or name another state folder with --state-dir"
    assert path.read_bytes() == before


def test_no_room_for_the_copy_means_no_upgrade(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as folder:
        path = earlier(folder / "state.db", "host-1")
        before = dumped(path)
        filler = folder / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(1 << 20))
        with pytest.raises(
            StoreError, match=r"cannot upgrade .*: a copy of it .* cannot be written to"
        ) as refused:
            SqliteStore(path)
        assert "\n" not in refused.value.message
        assert dumped(path) == before
        filler.unlink()
        assert names(path) == ["state.db"]
        SqliteStore(path).close()
        assert dumped(copy_of(path, 1)) == before


KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from topod.adapters.sqlite_store import SqliteStore

path, left = Path(sys.argv[1]), 0

def step(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0

def hook(event, args):
    # Each file that is opened, renamed, removed or given a mode.
    if event.split(".")[0] in ("os", "sqlite3", "open", "shutil") and any(str(path) in str(arg) for arg in args):
        step()

def connect(*args, **more):
    # Each statement, and each hundred steps of one.
    connection = plain(*args, **more)
    connection.set_trace_callback(step)
    connection.set_progress_handler(step, 100)
    return connection

plain, sqlite3.connect = sqlite3.connect, connect
for number in sys.stdin:
    child = os.fork()
    if child == 0:
        left = int(number)
        sys.addaudithook(hook)
        SqliteStore(path).close()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def killer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return what opens the database and is killed at the step whose number it reads."""
    path = tmp_path / "state.db"
    words = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def test_killed_at_any_step_it_is_the_old_database_or_the_new_one(
    tmp_path: Path, killer: subprocess.Popen[str]
) -> None:
    path = tmp_path / "state.db"
    assert killer.stdin is not None
    assert killer.stdout is not None
    earlier(path, "host-1")
    before = dumped(path)
    SqliteStore(path).close()
    after = {line for line in dumped(path) if "INSERT" not in line}
    found, number, status = [], 0, -9
    while status == -9:
        for one in tmp_path.iterdir():
            one.unlink()
        earlier(path, "host-1")
        number += 1
        killer.stdin.write(f"{number}\n")
        killer.stdin.flush()
        status = int(killer.stdout.readline())
        now = dumped(path)
        if now != before:
            assert after <= set(now)
            assert dumped(copy_of(path, 1)) == before
        elif copy_of(path, 1).exists():
            assert dumped(copy_of(path, 1)) == before
        found.append(now == before)
        if status == -9 and number % 5:
            continue
        # Whoever comes next goes on from there.
        with closing(SqliteStore(path)) as store:
            assert list(store.load().jobs) == [7]
        assert names(path) == ["state.db", "state.db.schema-1"]
    assert status == 0
    # First always the old one, then always the new one, and a good many of each.
    assert found == sorted(found, reverse=True)
    assert found.count(True) > 20
    assert found.count(False) > 5

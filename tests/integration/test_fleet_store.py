"""What every memory of a fleet keeps: whole outcomes, all fields, numbers that are never used twice."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from topod.adapters.sqlite_fleet import SqliteFleet
from topod.adapters.sqlite_store import SqliteStore
from topod.coordinator.storage import FleetStore
from topod.errors import StoreError
from topod.fleet.outcome import FleetNotice, FleetOutcome
from topod.fleet.states import (
    Closed,
    Ending,
    FleetJob,
    FleetJobId,
    FleetJobState,
    FleetRequest,
    FleetState,
    Guard,
    HostRecord,
    Member,
    Target,
)
from topod.fleet.view import FleetView
from topod.model.assignment import FleetJobReport, Place
from topod.model.cpuset import CpuSet
from topod.model.job import CheckpointHook, JobSpec, Mount, OnHostLost
from topod.model.request import AUTO, Affinity, ResourceRequest

SPEC = JobSpec(
    name="träin ✓",
    command=("sh", "-c", "echo 'a\nb'"),
    user="alice",
    env={"A": "1"},
    mounts=(Mount(source="/a", target="/b"),),
    checkpoint=CheckpointHook(command=("save",)),
    request=ResourceRequest(gpus=2, affinity=Affinity.NVLINK, cpus=AUTO),
    on_host_lost=OnHostLost.KEEP,
)
RECORD = HostRecord(
    name="a",
    known_since=1.0,
    labels={"rack": "7"},
    own_labels={"rack": "8", "zone": "x"},
    closed=Closed(reason="new disk", since=2.0, drained=True),
    hardware="dgx1",
    session="s1",
    version="0.1",
)


def full_job(ident: int = 7, **more: Any) -> FleetJob:
    report = FleetJobReport(job=ident, fence=5, local=3, state="running", gpus=(0, 1), started_at=4.0)
    member = Member(
        host="a",
        rank=1,
        place=Place(gpus=(0, 1), victims=("2", "5")),
        cpus=CpuSet.parse("0-3,8"),
        since=3.0,
        report=report,
    )
    fields: dict[str, Any] = {
        "request": FleetRequest(spec=SPEC, hosts=2, select=("rack=7",), gpu_model="*v100*"),
        "state": FleetJobState.STOPPING,
        "reason": "for job 9",
        "submitted_at": 1.5,
        "fence": 5,
        "members": (member, replace(member, host="b", rank=0, report=None, lost=True)),
        "go": True,
        "ending": Ending(state=FleetJobState.PENDING, reason="lost", exit_code=3, failed=True),
        "preemptions": 2,
        "target": (Target(host="c", gpus=6, cpus=CpuSet.parse("1")),),
        "guard": Guard(priority=900, seconds=60.0),
    }
    return FleetJob(id=FleetJobId(ident), **{**fields, **more})


def plain_job(ident: int, **more: Any) -> FleetJob:
    fields: dict[str, Any] = {"request": FleetRequest(spec=SPEC), "submitted_at": 1.0}
    return FleetJob(id=FleetJobId(ident), **{**fields, **more})


def outcome(base: FleetState, *jobs: FleetJob, **more: Any) -> FleetOutcome:
    """Return an outcome that changes these jobs; ended ones are no longer in the state."""
    left = {**base.jobs, **{job.id: job for job in jobs}}
    state = replace(
        base,
        generation=base.generation + 1,
        next_job=FleetJobId(max([base.next_job, *(job.id + 1 for job in jobs)])),
        next_fence=max([base.next_fence, *(job.fence + 1 for job in jobs)]),
        jobs={ident: job for ident, job in left.items() if job.ended_at is None},
        **more.pop("state", {}),
    )
    return FleetOutcome(state=state, view=FleetView(), changed=jobs, **more)


Opened = Callable[[], FleetStore]


@pytest.fixture(params=["sqlite"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Return what opens the same memory anew: another kind of it is one more parameter."""
    assert request.param == "sqlite"
    stores: list[SqliteFleet] = []

    def open_it() -> SqliteFleet:
        for store in stores:
            store.close()
        stores[:] = [SqliteFleet(tmp_path / "fleet.db")]
        return stores[0]

    yield open_it
    for store in stores:
        store.close()


# --- every kind ---------------------------------------------------------------------------------------------


def test_a_new_memory_holds_the_first_state(opened: Opened) -> None:
    assert opened().load() == FleetState()


def test_every_field_of_jobs_and_hosts_survives(opened: Opened) -> None:
    store = opened()
    made = outcome(FleetState(), full_job(), plain_job(8), changed_hosts=(RECORD,), state={"epoch": 3})
    made = replace(made, state=replace(made.state, hosts={"a": RECORD}))
    store.commit(FleetState(), made, now=10.0)
    assert opened().load() == made.state


def test_an_ended_job_is_history_and_no_longer_state(opened: Opened) -> None:
    store = opened()
    first = outcome(FleetState(), plain_job(1), plain_job(2))
    store.commit(FleetState(), first, now=1.0)
    ended = plain_job(1, state=FleetJobState.SUCCEEDED, ended_at=5.0, exit_code=0)
    store.commit(first.state, outcome(first.state, ended), now=5.0)
    store = opened()
    assert sorted(store.load().jobs) == [2]
    assert store.job(1) == ended
    assert store.ended_jobs(10) == (ended,)
    assert store.ended_jobs(10, "alice") == (ended,)
    assert store.ended_jobs(10, "bob") == ()
    assert store.job(99) is None
    assert sorted(store.jobs([1, 2, 99])) == [1, 2]


def test_a_removed_host_is_gone_and_can_come_again(opened: Opened) -> None:
    store = opened()
    first = outcome(FleetState(), changed_hosts=(RECORD,), state={"hosts": {"a": RECORD}})
    store.commit(FleetState(), first, now=1.0)
    second = outcome(first.state, removed_hosts=("a",), state={"hosts": {}})
    store.commit(first.state, second, now=2.0)
    assert opened().load().hosts == {}
    third = outcome(second.state, changed_hosts=(RECORD,), state={"hosts": {"a": RECORD}})
    opened().commit(second.state, third, now=3.0)
    assert opened().load().hosts == {"a": RECORD}


def test_a_token_leads_to_its_job(opened: Opened) -> None:
    opened().commit(FleetState(), outcome(FleetState(), plain_job(1)), now=1.0, tokens={"t": FleetJobId(1)})
    assert opened().submitted(["t", "u"]) == {"t": 1}


def test_a_token_that_was_used_stores_nothing_of_the_outcome(opened: Opened) -> None:
    store = opened()
    first = outcome(FleetState(), plain_job(1))
    store.commit(FleetState(), first, now=1.0, tokens={"t": FleetJobId(1)})
    with pytest.raises(StoreError):
        store.commit(first.state, outcome(first.state, plain_job(2)), now=2.0, tokens={"t": FleetJobId(2)})
    assert opened().load() == first.state


def test_who_did_not_see_the_last_outcome_changes_nothing(opened: Opened) -> None:
    store = opened()
    first = outcome(FleetState(), plain_job(1))
    store.commit(FleetState(), first, now=1.0)
    with pytest.raises(StoreError, match="generation 0"):
        store.commit(FleetState(), outcome(FleetState(), plain_job(1, reason="other")), now=2.0)
    assert opened().load() == first.state


def test_events_are_numbered_and_name_their_host(opened: Opened) -> None:
    notices = (
        FleetNotice(name="host.joined", text="a joins", host="a"),
        FleetNotice(name="job.assigned", text="job 1: a", job=FleetJobId(1), data=(("fence", 4),)),
    )
    made = opened().commit(FleetState(), outcome(FleetState(), plain_job(1), notices=notices), now=9.0)
    assert [(one.seq, one.name, one.job, one.data) for one in made] == [
        (1, "host.joined", None, {"host": "a"}),
        (2, "job.assigned", 1, {"fence": 4}),
    ]
    store = opened()
    assert store.events(0, 10) == made
    assert store.events(1, 10) == made[1:]
    assert store.events(-1, 10) == made[1:]
    assert store.events(0, 10, job=1) == made[1:]


def test_a_memory_that_is_well_says_so(opened: Opened) -> None:
    store = opened()
    store.check(thorough=False)
    store.check(thorough=True)


# --- SQLite -------------------------------------------------------------------------------------------------


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
from tests.integration.test_fleet_store import outcome, plain_job
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

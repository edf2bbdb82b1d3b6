"""What every memory of a fleet keeps: whole outcomes, all fields, numbers that are never used twice."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.integration.fleet_memories import RECORD, SPEC, full_job, in_etcd, outcome, plain_job
from topod.adapters.sqlite_fleet import SqliteFleet
from topod.coordinator.storage import FleetStore
from topod.errors import StoreError
from topod.fleet.outcome import FleetNotice
from topod.fleet.states import (
    Earlier,
    FleetJobId,
    FleetJobState,
    FleetRequest,
    FleetState,
)

Opened = Callable[[], FleetStore]


@pytest.fixture(params=["sqlite", "etcd"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Return what opens the same memory anew: another kind of it is one more parameter."""
    with contextlib.ExitStack() as stack:
        if request.param == "etcd":
            endpoints = request.getfixturevalue("one_etcd").endpoints
            yield lambda: in_etcd(stack, endpoints, f"/{tmp_path.name}/")
            return

        def in_sqlite() -> SqliteFleet:
            stack.close()
            return stack.enter_context(contextlib.closing(SqliteFleet(tmp_path / "fleet.db")))

        yield in_sqlite


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


def test_an_outcome_of_any_size_happens_whole_or_not_at_all(opened: Opened) -> None:
    store = opened()
    long = replace(SPEC, env={"A": "x" * 900_000})
    jobs = [
        *(plain_job(ident) for ident in range(1, 300)),
        *(plain_job(ident, request=FleetRequest(spec=long)) for ident in (300, 301)),
    ]
    notices = tuple(FleetNotice(name="job.submitted", text="", job=job.id) for job in jobs)
    tokens = {f"t{job.id}": job.id for job in jobs[:250]}
    first = outcome(FleetState(), *jobs, notices=notices)
    made = store.commit(FleetState(), first, now=1.0, tokens=tokens)
    store = opened()
    assert store.load() == first.state
    assert store.events(0, 1000) == made
    assert store.events(199, 3) == made[199:202]
    assert store.events(-2, 10) == made[-2:]
    assert store.submitted(tokens) == tokens
    again = [replace(job, reason="again") for job in jobs[:299]]
    with pytest.raises(StoreError):
        store.commit(first.state, outcome(first.state, *again), now=2.0, tokens={"t250": FleetJobId(9)})
    assert opened().load() == first.state


def test_a_job_that_an_earlier_topod_wrote_is_read(opened: Opened) -> None:
    body = (Path(__file__).parent / "fleet_job_before_members.json").read_bytes()
    over = {"state": "failed", "ended_at": 9.0, "exit_code": 1, "members": [], "id": 8}
    store = opened()
    ended = plain_job(8, state=FleetJobState.FAILED, ended_at=9.0)
    store.commit(FleetState(), outcome(FleetState(), plain_job(7, fence=5), ended), now=1.0)
    write_as_it_was(store, "jobs", 7, body)
    write_as_it_was(store, "ended", 8, msgspec.json.encode({**msgspec.json.decode(body), **over}))
    store = opened()
    job, gone = store.load().jobs[FleetJobId(7)], store.job(8)
    assert gone is not None
    assert job.earlier == gone.earlier == (Earlier(host="c", local=4, before=0, starts=2),)
    assert [member.host for member in job.members] == ["a", "b"]
    # Written again it is as those of today.
    store.commit(store.load(), outcome(store.load(), replace(job, reason="again")), now=2.0)
    assert opened().load().jobs[FleetJobId(7)] == replace(job, reason="again")


def write_as_it_was(store: FleetStore, where: str, ident: int, body: bytes) -> None:
    """Put the text of a job into a memory, past the memory's own encoding."""
    if isinstance(store, SqliteFleet):
        change = "UPDATE jobs SET body = ? WHERE id = ?"
        assert store._write(lambda file: file.execute(change, (body.decode(), ident)).rowcount) == 1
        return
    from aetcd import rpc  # noqa: PLC0415 - of the extra `etcd`

    from topod.adapters.etcd_fleet import EtcdFleet  # noqa: PLC0415

    assert isinstance(store, EtcdFleet)
    put = rpc.PutRequest(key=store.keys.at(where, ident), value=body)
    store._send([rpc.RequestOp(request_put=put)])

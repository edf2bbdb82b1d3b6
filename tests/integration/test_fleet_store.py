"""What every memory of a fleet keeps: whole outcomes, all fields, numbers that are never used twice."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.engine import skip_or_fail
from tests.etcd_cluster import EtcdCluster, certificates, etcd_cluster, missing_etcd
from topod.adapters.sqlite_fleet import SqliteFleet
from topod.adapters.sqlite_store import SqliteStore
from topod.coordinator.storage import FleetStore
from topod.errors import DataError, LeadLostError, NewerStateError, StoreError
from topod.fleet.outcome import FleetNotice, FleetOutcome
from topod.fleet.states import (
    Closed,
    Earlier,
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

if TYPE_CHECKING:
    from topod.adapters.etcd_fleet import EtcdFleet

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


def in_etcd(stack: contextlib.ExitStack, endpoints: Sequence[str], prefix: str, **more: int) -> "EtcdFleet":
    """Open a fleet in etcd as its leader; the one that led before leads no more."""
    from topod.adapters.etcd_client import EtcdClient  # noqa: PLC0415 - of the extra `etcd`
    from topod.adapters.etcd_fleet import EtcdFleet  # noqa: PLC0415
    from topod.adapters.etcd_lead import EtcdLead  # noqa: PLC0415

    stack.close()
    client = stack.enter_context(contextlib.closing(EtcdClient(endpoints)))
    lead = EtcdLead(client, prefix, name="me", seconds=60.0)
    assert lead.stand()
    stack.callback(lead.resign)
    return EtcdFleet(client, lead, prefix, **more)


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


# --- etcd ---------------------------------------------------------------------------------------------------


@pytest.fixture
def etcd(one_etcd: "EtcdCluster", tmp_path: Path) -> Iterator[Callable[..., "EtcdFleet"]]:
    """Return what opens a fleet of this test as its leader, with another leader before it dethroned."""
    with contextlib.ExitStack() as stack:
        yield lambda **more: in_etcd(stack, one_etcd.endpoints, f"/{tmp_path.name}/", **more)


def test_who_lost_the_lead_writes_nothing_whatever_it_believes(etcd: Callable[..., "EtcdFleet"]) -> None:
    old = etcd()
    first = outcome(FleetState(), plain_job(1))
    old.commit(FleetState(), first, now=1.0)
    lead, created = old._lead, old._lead._created
    # It hears nothing of the end of its lease, and its line to etcd works.
    lead.resign()
    lead._created, lead._until = created, lead._now() + 60
    assert lead.leads()
    with pytest.raises(LeadLostError, match="another coordinator leads"):
        old.commit(first.state, outcome(first.state, plain_job(2)), now=2.0)
    assert not lead.leads()
    with pytest.raises(LeadLostError):
        old.check(thorough=False)
    assert etcd().load() == first.state


def test_the_fleet_of_a_newer_topod_in_etcd_is_refused_and_left_alone(
    one_etcd: EtcdCluster, tmp_path: Path
) -> None:
    from aetcd import rpc  # noqa: PLC0415 - of the extra `etcd`

    from topod.adapters.etcd_client import EtcdClient  # noqa: PLC0415 - as above
    from topod.adapters.etcd_layout import LAYOUT, Keys  # noqa: PLC0415 - as above
    from topod.adapters.etcd_lead import EtcdLead  # noqa: PLC0415 - as above
    from topod.adapters.etcd_reader import EtcdReader  # noqa: PLC0415 - as above

    prefix = f"/{tmp_path.name}/"
    head = b'{"layout":%d,"generation":"numbers are texts by then"}' % (LAYOUT + 1)
    with contextlib.closing(EtcdClient(one_etcd.endpoints)) as client:
        reader = EtcdReader(client, Keys(prefix=prefix))
        lead = EtcdLead(client, prefix, name="me", seconds=60, may_lead=reader.read_head)
        reader.refuse_newer()
        put = rpc.PutRequest(key=reader.keys.at("head"), value=head)
        client.txn([], [rpc.RequestOp(request_put=put)])
        # Upgraded by another one while this one stood by: it takes the lead no more.
        with pytest.raises(NewerStateError, match=f"layout {LAYOUT + 1}, this topod knows {LAYOUT}$"):
            lead.stand()
        config = tmp_path / "topod.toml"
        config.write_text(
            f'[store]\nkind = "etcd"\nendpoints = ["{one_etcd.endpoints[0]}"]\nprefix = "{prefix}"\n'
        )
        words = ["--config", str(config), "--state-dir", str(tmp_path), "--socket", str(tmp_path / "s")]
        done = subprocess.run(
            [sys.executable, "-m", "topod.coordinator", *words],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 74
        assert done.stderr.startswith(f"error: etcd holds the fleet of a newer topod at {prefix}: layout ")
        found = client.range(rpc.RangeRequest(key=prefix.encode(), range_end=prefix.encode()[:-1] + b"0")).kvs
        assert [(entry.key, entry.value) for entry in found] == [(reader.keys.at("head"), head)]


def test_a_leader_stops_by_its_own_clock_before_etcd_lets_another_one_in(
    one_etcd: EtcdCluster, tmp_path: Path
) -> None:
    from topod.adapters.etcd_client import EtcdClient  # noqa: PLC0415 - of the extra `etcd`
    from topod.adapters.etcd_lead import EtcdLead  # noqa: PLC0415

    clock = [100.0]
    with contextlib.closing(EtcdClient(one_etcd.endpoints)) as client:
        lead = EtcdLead(client, f"/{tmp_path.name}/", name="me", seconds=60, now=lambda: clock[0])
        other = EtcdLead(client, f"/{tmp_path.name}/", name="other", seconds=60)
        assert lead.stand()
        assert not other.stand()
        assert other.leader == "me"
        clock[0] += 50.0
        assert lead.renew()
        clock[0] += 53.9
        assert lead.leads()
        clock[0] += 0.2
        assert not lead.leads()
        assert not lead.renew()
        # A renewal counts from before it was asked for, however long the answer takes.
        lead.resign()
        assert lead.stand()
        real = client.call

        def slow(ask: Any, **more: Any) -> Any:
            answer = real(ask, **more)
            clock[0] += 30.0
            return answer

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "call", slow)
            assert lead.renew()
        clock[0] += 24.1
        assert not lead.leads()
        lead.resign()
        assert other.stand()


@pytest.mark.parametrize("decided", [False, True], ids=["before", "after"])
def test_a_leader_that_dies_amid_a_large_outcome_leaves_all_of_it_or_nothing(
    etcd: Callable[..., "EtcdFleet"], decided: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = etcd()
    first = outcome(FleetState(), *(plain_job(ident) for ident in range(1, 200)))
    with monkeypatch.context() as patch:
        patch.setattr(old, "_settle" if decided else "_decide", die)
        with pytest.raises(KeyboardInterrupt):
            old.commit(FleetState(), first, now=1.0)
    new = etcd()
    state = new.load()
    assert state == (first.state if decided else FleetState())
    second = outcome(state, *(plain_job(ident, reason="new") for ident in range(1, 200)))
    new.commit(state, second, now=2.0)
    assert etcd().load() == second.state


def die(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_outcome_whose_answer_is_lost_is_known_to_have_happened(
    etcd: Callable[..., "EtcdFleet"],
) -> None:
    import grpc  # noqa: PLC0415 - of the extra `etcd`

    store = etcd()
    store.load()
    real = store._client._members[0].kv
    lost: list[Any] = []

    class Lost(grpc.RpcError):  # type: ignore[misc] # without types
        def code(self) -> object:
            return grpc.StatusCode.UNAVAILABLE

        def details(self) -> str:
            return "broken pipe"

    class Losing:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def Txn(self, *args: Any, **more: Any) -> Any:  # noqa: N802 - as etcd names it
            answer = real.Txn(*args, **more)
            if not lost:
                lost.append(answer)
                raise Lost
            return answer

    store._client._members[0].kv = Losing()  # type: ignore[misc] # in a test
    first = outcome(FleetState(), plain_job(1), notices=(FleetNotice(name="a", text="b"),))
    assert [
        event.seq for event in store.commit(FleetState(), first, now=1.0, tokens={"t": FleetJobId(1)})
    ] == [1]
    assert lost
    second = outcome(first.state, plain_job(2), notices=(FleetNotice(name="c", text="d"),))
    assert [event.seq for event in store.commit(first.state, second, now=1.0)] == [2]
    assert etcd().load() == second.state


def test_the_oldest_jobs_that_ended_are_forgotten_and_with_them_their_story(
    etcd: Callable[..., "EtcdFleet"],
) -> None:
    store = etcd(jobs_kept=30, events_kept=10)
    state = FleetState()
    notice = FleetNotice(name="job.submitted", text="", job=FleetJobId(1))
    jobs = [plain_job(ident) for ident in range(1, 81)]
    made = outcome(state, *jobs, notices=(notice, *[FleetNotice(name="host.silent", text="")] * 299))
    store.commit(state, made, now=1.0, tokens={f"t{job.id}": job.id for job in jobs})
    ended = [replace(job, state=FleetJobState.FAILED, ended_at=100.0 - job.id) for job in jobs[:70]]
    done = outcome(made.state, *ended, notices=(notice,) * 20)
    done = replace(done, state=replace(done.state, generation=64))
    store.commit(made.state, done, now=2.0)
    assert [job.id for job in store.ended_jobs(100)] == list(range(30, 0, -1))
    assert store.load() == done.state
    assert store.jobs([31, 70, 71]) == {71: jobs[70]}
    assert sorted(store.submitted(["t1", "t30", "t31", "t70", "t71"])) == ["t1", "t30", "t71"]
    assert [event.seq for event in store.events(0, 100, job=1)] == [1, *range(301, 321)]
    assert [event.seq for event in store.events(0, 1000)] == list(range(201, 321))
    assert [event.seq for event in store.events(310, 5)] == list(range(311, 316))


def test_etcd_is_spoken_to_by_tls_with_a_certificate_and_not_without(tmp_path: Path) -> None:
    if reason := missing_etcd():
        skip_or_fail(reason)
    from aetcd import rpc  # noqa: PLC0415 - of the extra `etcd`

    from topod.adapters.etcd_client import EtcdClient, Tls  # noqa: PLC0415
    from topod.adapters.etcd_lead import EtcdLead  # noqa: PLC0415

    made = certificates(tmp_path / "tls")
    ours = Tls(ca_file=made / "ca.pem", cert_file=made / "one.pem", key_file=made / "one.key")
    with (
        etcd_cluster(tmp_path, 1, tls=made) as cluster,
        contextlib.closing(EtcdClient(cluster.endpoints, ours)) as client,
        contextlib.closing(EtcdClient(cluster.endpoints, Tls(ca_file=made / "ca.pem"))) as stranger,
    ):
        assert EtcdLead(client, "/x/", name="me", seconds=5).stand()
        with pytest.raises(StoreError, match="etcd does not answer"):
            stranger.call(
                lambda member, seconds: member.kv.Range(rpc.RangeRequest(key=b"x"), timeout=seconds),
                goes_on=lambda: False,
            )
    with pytest.raises(DataError, match="cannot be read"):
        EtcdClient(["https://127.0.0.1:1"], Tls(ca_file=tmp_path / "none"))


# --- SQLite -------------------------------------------------------------------------------------------------


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

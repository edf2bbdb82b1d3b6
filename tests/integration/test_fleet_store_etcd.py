"""What only the memory in etcd must do: one leader writes, answers get lost, old things are forgotten."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine import skip_or_fail
from tests.etcd_cluster import EtcdCluster, certificates, etcd_cluster, missing_etcd
from tests.integration.fleet_memories import in_etcd, outcome, plain_job
from topod.errors import DataError, LeadLostError, NewerStateError, StoreError
from topod.fleet.outcome import FleetNotice
from topod.fleet.states import (
    FleetJobId,
    FleetJobState,
    FleetState,
)

if TYPE_CHECKING:
    from topod.adapters.etcd_fleet import EtcdFleet


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

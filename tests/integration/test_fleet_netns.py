"""A real fleet whose links are cut: shorter and longer than a lease, one way and both, with crashes on top.

Each host is a network namespace, and the terms are of seconds (`tests.short_terms`). One fleet for all tests here.
"""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.cut_fleet import FOR, HEAD, PORT, UNTIL, CutFleet
from tests.short_terms import LEASE_SECONDS
from topoctl import exit_codes
from topoctl.main import run
from topod.protocol.requests import DrainHost, LabelHost, ResumeHost


@pytest.fixture(scope="module")
def whole_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CutFleet]:
    with CutFleet(tmp_path_factory.mktemp("fleet"), ("a", "b", "c")) as fleet:
        yield fleet


@pytest.fixture
def fleet(whole_fleet: CutFleet) -> Iterator[CutFleet]:
    """Give the fleet as it was at first; whatever a test did, nothing ran twice and no GPU was shared."""
    whole_fleet.until_ready()
    yield whole_fleet
    whole_fleet.net.heal()
    if whole_fleet.coordinator.process is None:
        whole_fleet.coordinator.start()
    left = [job.id for job in whole_fleet.jobs() if job.ended_at is None]
    if left:
        whole_fleet.cancel(*left)
    assert whole_fleet.told.wrong() == []


def begun(fleet: CutFleet, *idents: int) -> list[str]:
    """Return on which hosts these jobs began, each time they did, in the order of the jobs."""
    return [told.host for ident in idents for told in fleet.told.told("begins", job=ident)]


def test_what_is_shorter_than_a_lease_restarts_nothing(fleet: CutFleet) -> None:
    jobs = [fleet.job_of(UNTIL.format(flag="one"), select=[f"rack={host}"]).id for host in ("a", "b", "c")]
    for ident in jobs:
        fleet.wait(ident, "running")
    cut_at = time.monotonic()
    fleet.net.cut("a")
    fleet.net.cut("b", leaves=True)
    fleet.net.cut("c", arrives=True)
    fleet.coordinator.kill()
    fleet.hosts["a"].kill()
    fleet.hosts["a"].start(wait=False)
    fleet.coordinator.start()
    fleet.net.heal()
    fleet.until_ready()
    if time.monotonic() - cut_at >= LEASE_SECONDS:
        pytest.skip("this machine took longer for it than a lease lasts")
    assert [(fleet.wait(ident, "running").starts, ident) for ident in jobs] == [(1, ident) for ident in jobs]
    fleet.told.release("one")
    assert [fleet.wait(ident).state for ident in jobs] == ["succeeded"] * 3
    assert begun(fleet, *jobs) == ["a", "b", "c"]


def test_what_is_longer_moves_jobs_once_their_host_has_stopped_them(
    fleet: CutFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = UNTIL.format(flag="two")
    for host, labels in (("a", {"a": "yes"}), ("b", {"b": "yes"}), ("c", {"a": "yes", "b": "yes"})):
        fleet.ask(LabelHost(host=host, labels=labels))
    fleet.ask(DrainHost(host="c", reason="so that jobs go elsewhere"))
    defiant = fleet.job_of(flag, gpus=4, defiant=True, select=["a=yes"]).id
    moving = fleet.job_of(flag, gpus=4, select=["b=yes"]).id
    keeping = fleet.job_of(flag, gpus=4, keep=True, select=["b=yes"]).id
    for ident in (defiant, moving, keeping):
        fleet.wait(ident, "running")
    fleet.ask(ResumeHost(host="c"))

    fleet.net.cut("a")
    fleet.net.cut("b", leaves=True)
    # A topod that ends and comes back while it is cut off minds what is left of its lease.
    fleet.hosts["b"].kill()
    fleet.hosts["b"].start()
    # On the host all goes on for its own users, and they are told.
    local = fleet.hosts["b"].submit("true", gpus=0)
    assert fleet.hosts["b"].wait(local.id).state == "succeeded"
    fleet.until(lambda: begun(fleet, defiant, moving) == ["a", "c", "b", "c"])
    assert run(["--socket", str(fleet.hosts["a"].socket), "ps"]) == exit_codes.OK
    assert "the coordinator" in capsys.readouterr().err
    # What runs elsewhere began after the host had stopped it; who defies SIGTERM cannot tell when that was, but
    # would have been seen to run twice.
    ended, began = (fleet.told.told(what, job=moving)[-1] for what in ("ends", "begins"))
    assert (ended.host, began.host) == ("b", "c")
    assert ended.at < began.at
    assert fleet.told.told("ends", job=keeping) == []
    assert fleet.job(keeping).hosts == ["b"]
    assert fleet.standing() == {"a": "silent", "b": "silent", "c": "ready"}
    states = fleet.net.connections(HEAD, PORT)
    assert states["syn-received"] + states["closing"] < 30, states

    fleet.net.heal()
    fleet.until_ready()
    assert fleet.wait(keeping, "running").starts == 1
    again = fleet.job_of("true", gpus=8, select=["rack=a"]).id
    assert fleet.wait(again).state == "succeeded"
    fleet.told.release("two")
    assert [fleet.wait(ident).state for ident in (defiant, moving, keeping)] == ["succeeded"] * 3
    assert begun(fleet, defiant, moving, keeping) == ["a", "c", "b", "c", "b"]


def test_a_host_declared_dead_frees_what_it_kept_and_learns_of_it_when_it_comes_back(
    fleet: CutFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.ask(DrainHost(host="c", reason="so that jobs go elsewhere"))
    fleet.ask(DrainHost(host="b", reason="so that jobs go elsewhere"))
    kept = fleet.job_of(UNTIL.format(flag="three"), gpus=8, keep=True).id
    assert fleet.wait(kept, "running").hosts == ["a"]
    fleet.ask(ResumeHost(host="b"))
    fleet.net.cut("a")
    fleet.until(lambda: fleet.standing()["a"] == "silent")
    remove = ["--socket", str(fleet.coordinator.socket), "host", "remove", "a"]
    assert run(remove) == exit_codes.CONFLICT
    assert f"a still has job {kept}" in capsys.readouterr().err
    # It is vouched for: what runs there is ended, as with the machine.
    (first,) = fleet.told.told("begins", job=kept)
    fleet.hosts["a"].kill()
    os.killpg(first.pid, signal.SIGKILL)
    assert run([*remove, "--dead"]) == exit_codes.OK
    assert fleet.wait(kept, "running").state == "running"
    assert begun(fleet, kept) == ["a", "b"]
    # Its topod finds a job that is over, and the fleet has no use for that any more.
    fleet.hosts["a"].start()
    fleet.net.heal()
    fleet.until_ready("a")
    fleet.told.release("three")
    assert fleet.wait(kept).state == "succeeded"
    assert begun(fleet, kept) == ["a", "b"]
    fleet.ask(ResumeHost(host="c"))


def test_over_thin_and_slow_lines_that_lose_a_fifth_all_gets_done(fleet: CutFleet) -> None:
    for host in fleet.hosts:
        fleet.net.worsen(host, loss=0.2, rate="64kbit", delay=0.15)
    jobs = [fleet.job_of(FOR.format(seconds=0.2, code=number % 2), gpus=8).id for number in range(6)]
    ended = [fleet.wait(ident, timeout=120.0) for ident in jobs]
    assert [(job.state, job.exit_code) for job in ended] == [("succeeded", 0), ("failed", 1)] * 3
    assert all(fleet.told.told("done", job=ident) for ident in jobs)

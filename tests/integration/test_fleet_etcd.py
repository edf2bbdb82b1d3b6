"""Two coordinators on a real etcd of three members: whoever dies, jobs run exactly once and the fleet goes on.

The fleet takes longest to come up, so one test lives through all deaths, one after the other.
"""

import signal
from pathlib import Path

import pytest

from tests.etcd_cluster import etcd_cluster
from tests.integration.fleet_in_etcd import SharedFleet
from topoctl.main import run
from topod.protocol.client import Client
from topod.protocol.requests import ListJobs

WAIT = "while :; do sleep 0.1; done"


def test_jobs_run_exactly_once_whichever_leader_dies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with etcd_cluster(tmp_path, 3) as etcd, SharedFleet(tmp_path, etcd) as fleet:
        who_stands_by_says_who_leads(fleet, capsys)
        long = fleet.submit(WAIT, gpus=4)
        assert fleet.wait(long.id, "running").state == "running"
        another_coordinator_takes_over_from_one_that_is_killed(fleet)
        a_coordinator_that_is_stopped_hands_over(fleet)
        a_leader_that_slept_leads_no_more_when_it_wakes(fleet)
        nothing_is_lost_when_the_leader_of_etcd_is_killed(fleet)
        both_leaders_are_killed(fleet)
        assert fleet.job(long.id).state == "running"
        fleet.cancel(long.id)
        assert fleet.wait(long.id).state == "cancelled"
        assert fleet.witness().count(f"{long.id} begins") == 1
        assert [event.seq for event in fleet.events()] == list(range(1, len(fleet.events()) + 1))


def who_stands_by_says_who_leads(fleet: SharedFleet, capsys: pytest.CaptureFixture[str]) -> None:
    leader, (other,) = fleet.leader_and_others()
    status = run(["--socket", str(fleet.heads[other].socket), "hosts"])
    said = capsys.readouterr().err
    assert (status, f"{fleet.heads[leader].endpoint} leads the fleet just now" in said) == (69, True), said


def another_coordinator_takes_over_from_one_that_is_killed(fleet: SharedFleet) -> None:
    old, (other,) = fleet.leader_and_others()
    with fleet.follower() as follower:
        with fleet.stream() as stream, Client(fleet.remote()) as client:
            client.ask(ListJobs())
            fleet.heads[old].kill()
            # Users elsewhere go on by themselves, and so do the hosts, and who watches.
            client.ask(ListJobs(), timeout=60.0)
            assert fleet.leader() == other
            stream.goes_on()
            fleet.heads[old].start(wait=False)
        follower.sees_the_same_as_who_comes_now(leaderships=2, ended=stream.jobs)


def a_coordinator_that_is_stopped_hands_over(fleet: SharedFleet) -> None:
    old, (other,) = fleet.leader_and_others()
    with fleet.stream() as stream:
        assert fleet.heads[old].stop() == 0
        fleet.heads[old].start(wait=False)
        assert fleet.leader() == other
        stream.goes_on()


def a_leader_that_slept_leads_no_more_when_it_wakes(fleet: SharedFleet) -> None:
    old, (other,) = fleet.leader_and_others()
    head = fleet.heads[old]
    with fleet.stream() as stream:
        # Nobody is to ask it meanwhile: as if it were not there.
        asleep, head.process = head.process, None
        assert asleep is not None
        asleep.send_signal(signal.SIGSTOP)
        try:
            assert fleet.leader() == other
        finally:
            asleep.send_signal(signal.SIGCONT)
            head.process = asleep
        fleet.until(lambda: fleet.heads[other].endpoint in fleet.standing(old))
        stream.goes_on()


def nothing_is_lost_when_the_leader_of_etcd_is_killed(fleet: SharedFleet) -> None:
    with fleet.stream() as stream:
        member = fleet.etcd.leader()
        fleet.etcd.kill(member)
        stream.goes_on()
        fleet.etcd.start(member)


def both_leaders_are_killed(fleet: SharedFleet) -> None:
    old, (other,) = fleet.leader_and_others()
    member = fleet.etcd.leader()
    with fleet.stream() as stream:
        fleet.etcd.kill(member)
        fleet.heads[old].kill()
        fleet.etcd.start(member)
        assert fleet.leader() == other
        stream.goes_on()
        fleet.heads[old].start(wait=False)

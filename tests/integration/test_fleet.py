"""A real fleet: jobs go where there is room, the cheapest are stopped for an urgent one, and a crash loses nothing."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.integration.fleet_process import Fleet
from topoctl import exit_codes
from topoctl.main import run
from topod.errors import TopodError
from topod.protocol.client import Client
from topod.protocol.replies import Changes, Jobs, LogChunk
from topod.protocol.requests import AtHost, Drain, Follow, ListJobs, ReadLog

WAIT = "while :; do sleep 0.1; done"


def test_a_fleet_fills_up_preempts_the_cheapest_and_survives_its_coordinator(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        # Full: two jobs of 4 GPUs on each of three hosts, of different priorities.
        jobs = [fleet.submit(WAIT, gpus=4, priority=priority) for priority in (300, 310, 320, 330, 340, 350)]
        running = [fleet.wait(job.id, "running") for job in jobs]
        assert [job.state for job in running] == ["running"] * 6, [job.reason for job in running]
        assert sorted(host for job in running for host in job.hosts) == ["a", "a", "b", "b", "c", "c"]
        assert [host.free_gpus for host in fleet.host_views()] == [0, 0, 0]

        # The output of a job comes from its host, to users elsewhere too.
        where = running[0].hosts[0]
        with Client(fleet.remote()) as client:
            with pytest.raises(TopodError, match="belongs to"):
                client.ask(ReadLog(job=jobs[0].id, wait=10.0))
            assert len(getattr(client.ask(ListJobs()), "jobs", [])) == 6
        chunk = fleet.ask(ReadLog(job=jobs[0].id, wait=10.0))
        assert isinstance(chunk, LogChunk)
        assert chunk.data.decode() == f"job {jobs[0].id} on {where}\n"

        # Urgent, 4 GPUs: the one job of the lowest priority is the cheapest set over the whole fleet.
        urgent = fleet.submit(WAIT, gpus=4, priority=1000)
        assert fleet.wait(urgent.id, "running").hosts == [where]
        victim = fleet.wait(jobs[0].id, "pending")
        assert (victim.state, victim.preemptions) == ("pending", 1)
        assert [fleet.job(job.id).state for job in jobs[1:]] == ["running"] * 5

        # Its room comes free on another host: there it goes on.
        other = next(job for job in running if job.hosts != [where])
        fleet.cancel(other.id)
        assert fleet.wait(victim.id, "running").hosts == other.hosts

        # The coordinator is killed with a job just taken; what runs goes on, and nothing is done twice.
        late = fleet.submit("exit 0", gpus=1, priority=100, token="once")
        fleet.coordinator.kill()
        fleet.coordinator.start()
        assert fleet.submit("exit 0", gpus=1, priority=100, token="once").id == late.id
        left = {job.id for job in jobs} - {other.id}
        fleet.until(lambda: {job.id for job in fleet.jobs() if job.state == "running"} == left | {urgent.id})
        fleet.cancel(urgent.id)
        assert fleet.wait(late.id).state == "succeeded"
        fleet.cancel(late.id, *left)
        assert [fleet.wait(ident).state for ident in sorted(left)] == ["cancelled"] * 5

        told = fleet.witness()
        assert [line for line in told if not line.endswith("begins")] == []
        begun = {
            ident: told.count(f"{ident} begins") for ident in [*(job.id for job in jobs), urgent.id, late.id]
        }
        assert begun == {ident: 2 if ident == victim.id else 1 for ident in begun}


def test_hosts_obey_a_coordinator_whose_state_was_lost_or_restored(tmp_path: Path) -> None:
    with Fleet(tmp_path, hosts=("a",)) as fleet:
        state, copy = fleet.coordinator.folder / "state", tmp_path / "copy"
        jobs = [fleet.submit("exit 0", gpus=1) for _ in range(3)]
        assert [fleet.wait(job.id).state for job in jobs] == ["succeeded"] * 3
        fleet.coordinator.stop()
        shutil.copytree(state, copy)
        for restored in (True, False):
            fleet.coordinator.start()
            later = [fleet.submit("exit 0", gpus=1) for _ in range(3)]
            assert [fleet.wait(job.id).state for job in later] == ["succeeded"] * 3
            fleet.coordinator.stop()
            shutil.rmtree(state)
            if restored:
                shutil.copytree(copy, state)
        fleet.coordinator.start()
        job = fleet.submit("exit 0", gpus=1)
        assert fleet.wait(job.id).state == "succeeded"
        assert "fleet.behind" in [event.name for event in fleet.events()]


def test_a_drained_host_gets_nothing_new_and_labels_choose_hosts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    with Fleet(tmp_path, ("a", "b")) as fleet:
        socket = str(fleet.coordinator.socket)

        def told(*words: str) -> str:
            status = run(["--socket", socket, *words])
            said = capsys.readouterr()
            assert status == 0, said.err
            return said.out

        assert told("host", "drain", "a", "--reason", "new disk").startswith("a gets no new jobs")
        assert fleet.submit(WAIT, gpus=8, select=["rack=a"]).state == "pending"
        there = fleet.submit(WAIT, gpus=8)
        assert fleet.wait(there.id, "running").hosts == ["b"]
        assert [host.state for host in fleet.host_views()] == ["cordoned", "ready"]
        assert "new disk" in fleet.job(1).reason
        shown = told("hosts")
        assert re.search(r"^a +cordoned +8/8 .* rack=a .* new disk$", shown, re.MULTILINE), shown
        assert re.search(r"^b +ready +0/8 ", shown, re.MULTILINE), shown
        assert re.search(r"^ *2 .* running +b ", told("ps"), re.MULTILINE)
        assert "b (job 1 there, running): GPUs 0-7" in " ".join(told("show", "2").split())
        assert told("hosts", "--counts") == "hosts: 1 cordoned, 1 ready; jobs: 1 pending, 1 running\n"
        counts = json.loads(told("hosts", "--counts", "-o", "json"))
        assert (counts["host_states"], counts["port"]["admitted"]) == ({"cordoned": 1, "ready": 1}, 2)
        assert told("host", "label", "a", "rack=z", "fast=yes") == "labels of a: fast=yes, rack=z\n"
        assert told("hosts", "--select", "fast=yes", "-o", "name") == "a\n"
        assert told("host", "label", "a", "rack-", "fast-") == "labels of a: rack=a\n"
        assert run(["--socket", socket, "host", "remove", "b", "--dead"]) == exit_codes.CONFLICT
        assert "it was heard of just now" in capsys.readouterr().err
        assert told("submit", "--array", "0-3%1", "--name", "fold", "--", "true").startswith(
            "Submitted array 3"
        )
        assert told("submit", "--after", "3", "--parsable", "--", "true") == "7\n"
        assert told("wait", "3", "7").splitlines()[-2:] == [
            "job 3[3] (fold) succeeded",
            "job 7 (true) succeeded",
        ]
        assert told("submit", "--dry-run", "--after", "any:3[1]", "--", "true").startswith("would start now")
        assert (
            run(["--socket", socket, "submit", "--after", "failed:3[1]", "--", "true"]) == exit_codes.CONFLICT
        )
        assert "job 3[1] (fold) succeeded" in capsys.readouterr().err
        one = str(fleet.hosts["a"].socket)
        assert run(["--socket", one, "hosts"]) == exit_codes.ERROR
        assert "this is one host, not a fleet" in capsys.readouterr().err
        assert run(["--socket", one, "submit", "--hosts", "2", "--", "true"]) == exit_codes.ERROR
        assert "this is one host, not a fleet: --hosts" in capsys.readouterr().err
        told("host", "resume", "a")
        assert fleet.wait(1, "running").hosts == ["a"]
        plan = told("plan", "--gpus", "0")
        assert "next host   b: no GPUs, stopping nobody" in plan
        assert "hosts       2 of 2 looked at, 2 with room as they are" in plan

        # A job that goes on elsewhere: its output is found where it lies.
        assert run(["--socket", socket, "cancel", "99", "1"]) == exit_codes.NOT_FOUND
        assert capsys.readouterr().err == "no job 99 in this fleet\n"
        assert fleet.wait(1).state == "cancelled"
        told("host", "drain", "b", "--requeue", "--reason", "fan")
        fleet.until(lambda: fleet.job(there.id).hosts == ["a"] and fleet.job(there.id).state == "running")
        assert told("logs", "--attempt", "1", "2").splitlines()[0] == "job 2 on b"
        fleet.until(lambda: told("logs", "2") == "job 2 on a\n")
        assert run(["--socket", socket, "logs", "--attempt", "3", "2"]) == exit_codes.NOT_FOUND
        assert "has no attempt 3; its last is 2" in capsys.readouterr().err
        assert ": attempt 1" in next(line for line in told("show", "2").splitlines() if "before" in line)

        # What only a host knows or does, through the fleet.
        assert "GPU7" in told("topo", "--host", "a")
        local = fleet.job(there.id).members[0].local_job
        assert told("--host", "a", "ps", "-o", "name") == f"{local}\n"
        assert told("--host", "b", "drain", "--gpu", "3", "--reason", "x").startswith("GPU3 is drained")
        fleet.until(lambda: " 7/8 " in told("hosts", "--select", "rack=b"))
        with Client(fleet.remote()) as alice:
            assert isinstance(alice.ask(AtHost(host="b", request=ListJobs())), Jobs)
            changes = alice.ask(AtHost(host="b", request=Follow(seconds=1.0)))
            assert isinstance(changes, Changes)
            assert [gpu.index for gpu in changes.gpus] == list(range(8))
            with pytest.raises(TopodError, match="may not drain"):
                alice.ask(AtHost(host="b", request=Drain(gpu="3", reason="x")))
        for place, name in ((one, "clock"), (socket, "time")):
            run(["--socket", place, "doctor", "-o", "json"])
            found = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
            assert found[name]["verdict"] in {"ok", "warn"}
        for words, hint in ((["rebalance"], "--host NAME rebalance"), (["topo"], "--host NAME topo")):
            assert run(["--socket", socket, *words]) == exit_codes.ERROR
            assert hint in capsys.readouterr().err
        assert run(["--socket", socket, "--host", "a", "cancel", "2"]) == exit_codes.USAGE
        assert run(["--socket", socket, "--host", "z", "topo"]) == exit_codes.NOT_FOUND
        assert run(["--socket", one, "--host", "a", "topo"]) == exit_codes.ERROR
        assert run(["--socket", socket, "plan", "--hosts", "2", "--gpus", "1"]) == exit_codes.WOULD_WAIT
        assert run(["--socket", socket, "plan", "--gpus", "9"]) == exit_codes.ERROR
        assert "can never run here" in capsys.readouterr().out
        fleet.cancel(there.id)
        assert fleet.wait(there.id).state == "cancelled"


@pytest.mark.parametrize("at", [3, 4, 5, 6])
def test_a_coordinator_killed_before_or_after_any_commit_loses_and_doubles_nothing(
    tmp_path: Path, at: int
) -> None:
    with Fleet(tmp_path, ("a",)) as fleet:
        fleet.coordinator.stop()
        fleet.coordinator.start("--crash-at", str(at), wait=False)
        submitted = fleet.through_crashes(lambda: fleet.submit("exit 7", gpus=2, token="once"))
        fleet.until(lambda: fleet.through_crashes(lambda: fleet.job(submitted.id)).ended_at is not None)
        ended = fleet.through_crashes(lambda: fleet.wait(submitted.id, timeout=2.0))
        assert (ended.state, ended.exit_code) == ("failed", 7)
        assert fleet.witness() == ["1 begins"]
        assert fleet.submit("exit 7", gpus=2, token="once").id == submitted.id
        assert [event.seq for event in fleet.events()] == list(range(1, len(fleet.events()) + 1))

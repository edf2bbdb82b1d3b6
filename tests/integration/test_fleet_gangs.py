"""Jobs over several hosts of a real fleet: all members or none, who are stopped, lost and started anew as one."""

import contextlib
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.integration.fleet_process import Fleet
from topoctl import exit_codes
from topoctl.main import run
from topod.model.job import JobSpec, RestartPolicy
from topod.model.request import ResourceRequest
from topod.protocol.replies import Jobs
from topod.protocol.requests import Submit
from topod.protocol.views import JobView

MEET = """
import os, socket, sys, time
place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if os.environ["TOPOD_HOST_RANK"] == "0":
    with socket.create_server(place) as server:
        peer = server.accept()[0]
        print("rank 0 met", peer.recv(64).decode(), flush=True)
else:
    while True:
        try:
            peer = socket.create_connection(place)
            break
        except OSError:
            time.sleep(0.05)
    peer.send(b"rank " + os.environ["TOPOD_HOST_RANK"].encode())
    print("rank 1 was there", flush=True)
"""
MEMBER = """
own={runs}/$TOPOD_FLEET_JOB-$TOPOD_HOST_RANK
echo "$TOPOD_FLEET_JOB.$TOPOD_HOST_RANK begins" >> {runs}/members
exec 9> $own.lock
flock -n 9 || echo "$TOPOD_FLEET_JOB.$TOPOD_HOST_RANK runs twice" >> {runs}/members
env > $own.env
trap 'exit 0' TERM
"""
WAIT = "while :; do sleep 0.1; done"


def submit(
    fleet: Fleet,
    rest: str,
    *,
    hosts: int = 2,
    gpus: int = 8,
    priority: int = 500,
    select: Sequence[str] = (),
    **more: object,
) -> JobView:
    spec = JobSpec(
        name="gang" if hosts > 1 else "single",
        command=("sh", "-c", MEMBER.format(runs=fleet.runs) + rest),
        request=ResourceRequest(gpus=gpus, priority=priority),
        grace_seconds=5.0,
        **more,  # type: ignore[arg-type]  # test shorthand
    )
    reply = fleet.ask(Submit(spec=spec, hosts=hosts, select=[*select]))
    assert isinstance(reply, Jobs)
    return reply.jobs[0]


def environment(fleet: Fleet, job: JobView, rank: int) -> dict[str, str]:
    lines = (fleet.runs / f"{job.id}-{rank}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_a_gang_starts_is_stopped_and_starts_anew_as_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    with Fleet(tmp_path) as fleet:
        socket = str(fleet.coordinator.socket)

        def told(*words: str) -> str:
            status = run(["--socket", socket, *words])
            said = capfd.readouterr()
            assert status == 0, said.err
            return " ".join(said.out.split())

        # All members run, know of each other, and find each other.
        meet = fleet.runs / "meet.py"
        meet.write_text(MEET)
        gang = submit(fleet, f"python3 {meet}; {WAIT}")
        first = fleet.wait(gang.id, "running")
        assert (first.state, first.hosts) == ("running", ["a", "b"]), first.reason
        fleet.until(lambda: "met" in told("logs", str(gang.id)))
        assert told("logs", str(gang.id)) == "rank 0 met rank 1"
        assert told("logs", "--on", "b", str(gang.id)) == "rank 1 was there"
        assert told("exec", "--rank", "1", str(gang.id), "sh", "-c", "echo on $TOPOD_HOST_RANK") == "on 1"
        for rank in (0, 1):
            env = environment(fleet, first, rank)
            assert (env["TOPOD_HOST_RANK"], env["TOPOD_HOST_COUNT"], env["TOPOD_HOSTS"]) == (
                str(rank), "2", "a,b",
            )  # fmt: skip
            assert env["TOPOD_RENDEZVOUS"] == f"127.0.0.1:{env['MASTER_PORT']}" == first.rendezvous
        shown = told("show", str(gang.id))
        assert "8 GPUs, any guaranteed; shared pool, on each of 2 hosts" in shown
        assert re.search(r"rank 1: b \(job 1 there, running\): GPUs 0-7", shown), shown
        assert re.search(rf"{gang.id} gang .* running a\+1 .* 2x8 ", told("ps")), told("ps")

        # One that is attached prints what rank 0 does and ends as the job.
        word = "echo rank $TOPOD_HOST_RANK of $TOPOD_HOST_COUNT"
        assert told("run", "-q", "--hosts", "2", "--gpus", "0", "--", "sh", "-c", word) == "rank 0 of 2"

        # One host is left: of two nothing starts, of one it does.
        more = submit(fleet, WAIT, priority=400)
        assert more.state == "pending"
        assert fleet.job(more.id).reason.startswith("1 of 2 hosts could take it now")
        single = submit(fleet, WAIT, hosts=1)
        assert fleet.wait(single.id, "running").hosts == ["c"]
        fleet.cancel(more.id)

        # A gang in the way counts as a whole: a single job is stopped instead, two hosts are had for one gang.
        urgent = submit(fleet, WAIT, hosts=1, priority=900)
        assert fleet.wait(urgent.id, "running").hosts == ["c"]
        assert fleet.job(gang.id).state == "running"
        fleet.cancel(urgent.id)
        assert fleet.wait(single.id, "running").hosts == ["c"]
        assert run(["--socket", socket, "plan", "--hosts", "2", "--gpus", "8", "--priority", "900"]) == 10
        shown = capfd.readouterr().out
        assert "would start on 8 GPUs of each of 2 hosts after stopping 1 job\n" in shown
        assert (
            shown.count(
                "job 1 (normal): holds GPUs 0-7, which the plan takes; in all 2 containers of it stop"
            )
            == 2
        )
        assert shown.count("victims: 2 of priority 500") == 2
        greater = submit(fleet, WAIT, priority=900)
        assert fleet.wait(greater.id, "running").hosts == ["a", "b"]
        assert (fleet.job(single.id).state, fleet.job(gang.id).state) == ("running", "pending")

        # One member is stopped for another job: the other one goes too, and both come back together.
        fleet.cancel(greater.id, single.id)
        assert len(fleet.wait(gang.id, "running").hosts) == 2
        filler = submit(fleet, WAIT, hosts=1, priority=900)
        urgent = submit(fleet, WAIT, hosts=1, priority=800)
        assert fleet.wait(urgent.id, "running").state == "running"
        back = fleet.wait(gang.id, "pending")
        assert (back.state, back.preemptions) == ("pending", 2)
        fleet.cancel(urgent.id, filler.id)
        back = fleet.wait(gang.id, "running")
        assert (back.state, len(back.hosts), back.starts) == ("running", 2, 3)
        fleet.until(lambda: "met" in told("logs", "--attempt", "3", str(gang.id)))
        fleet.cancel(gang.id)
        assert fleet.wait(gang.id).state == "cancelled"

        # What is printed comes from the start that is asked for.
        assert told("logs", "--attempt", "1", str(gang.id)).startswith("rank 0 met rank 1")
        assert told("logs", "--attempt", "1", "--rank", "1", str(gang.id)).startswith("rank 1 was there")
        shown = told("show", str(gang.id))
        assert re.search(r"before rank 0: \S+ \(job \d+ there\): attempt 1 rank 1: \S+ \(job", shown), shown
        assert run(["--socket", socket, "logs", "--rank", "2", str(gang.id)]) == exit_codes.NOT_FOUND
        assert "asks for 2 hosts: there is no rank 2" in capfd.readouterr().err

        # A host dies with all that runs on it.
        gang = submit(fleet, WAIT, gpus=4)
        lost, left = fleet.wait(gang.id, "running").hosts
        _power_off(fleet, lost)
        alive = sorted({"a", "b", "c"} - {lost})
        for host in alive:
            told("host", "label", host, "alive=yes")

        # A member that fails ends the others, or all start anew, as the job says.
        failing = "test $TOPOD_HOST_RANK = 0 || exit 3; " + WAIT
        ended = fleet.wait(submit(fleet, failing, gpus=4, select=["alive=yes"]).id)
        assert (ended.state, ended.exit_code) == ("failed", 3), ended.reason
        once = f"test -e {fleet.runs}/failed && exit 0; test $TOPOD_HOST_RANK = 0 && {{ {WAIT}; }}; "
        again = submit(
            fleet,
            f"{once} touch {fleet.runs}/failed; exit 3",
            gpus=4,
            select=["alive=yes"],
            restart=RestartPolicy.ON_FAILURE,
        )
        assert (fleet.wait(again.id).state, fleet.job(again.id).starts) == ("succeeded", 2)

        # When it is said that the host is dead, the gang is placed anew without it.
        fleet.until(lambda: next(h for h in fleet.host_views() if h.name == lost).state == "silent")
        told("host", "remove", lost, "--dead")
        fleet.until(lambda: fleet.job(gang.id).starts == 2)
        last = fleet.wait(gang.id, "running")
        assert sorted(last.hosts) == alive, (left, last.reason)

        # Requeued through the fleet, or one member of it on its host: all stop and start anew, uncounted.
        assert told("requeue", str(gang.id)) == f"Requeueing job {gang.id} (gang)"
        fleet.until(lambda: fleet.job(gang.id).starts == 3)
        member = fleet.wait(gang.id, "running").members[1]
        on_host = ["--socket", str(fleet.hosts[member.host].socket), "requeue", str(member.local_job)]
        assert run(on_host) == exit_codes.OK
        fleet.until(lambda: fleet.job(gang.id).starts == 4)
        last = fleet.wait(gang.id, "running")
        assert (last.state, len(last.hosts), last.preemptions) == ("running", 2, 0), last.reason
        fleet.cancel(gang.id)
        assert fleet.wait(gang.id).state == "cancelled"

        lines = (fleet.runs / "members").read_text().splitlines()
        assert [line for line in lines if not line.endswith("begins")] == []
        assert lines.count(f"{more.id}.0 begins") == 0


def _power_off(fleet: Fleet, host: str) -> None:
    """Kill a topod and what it started, as when the machine loses power."""
    topod = fleet.hosts[host]
    topod.kill()
    mine = os.fsencode(topod.folder) + b"/"
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mine in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)

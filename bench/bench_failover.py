"""How long a fleet has no leader: from the death of one coordinator to the first job the next one places.

And how long a user waits whose coordinator is stopped in its tracks: connections stay, and nothing is said.

Two coordinators, three members of etcd, two hosts, all on this machine; the leader's lease is 5 s, etcd's own
settings are its defaults. Jobs are submitted all the time.
"""

import argparse
import contextlib
import signal
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.verdicts import Verdict, head, row
from tests.etcd_cluster import EtcdCluster, missing_etcd
from tests.integration.fleet_in_etcd import LEASE, SharedFleet
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.client import Client
from topod.protocol.remote import Remote
from topod.protocol.replies import Events
from topod.protocol.requests import ListJobs, ReadEvents, Submit

GOAL_SECONDS = 10.0
Deed = Callable[[SharedFleet, str], None]


def killed(fleet: SharedFleet, leader: str) -> None:
    fleet.heads[leader].kill()


def killed_with_etcd(fleet: SharedFleet, leader: str) -> None:
    fleet.etcd.kill(fleet.etcd.leader())
    fleet.heads[leader].kill()


def stopped(fleet: SharedFleet, leader: str) -> None:
    fleet.heads[leader].stop()


DEEDS: dict[str, Deed] = {
    "kill -9 of the leading coordinator": killed,
    "kill -9 of it and of etcd's leader": killed_with_etcd,
    "systemctl stop of it": stopped,
}


def failover(fleet: SharedFleet, deed: Deed) -> float:
    """Return the seconds from the deed to the first placement by another coordinator."""
    leader, _ = fleet.leader_and_others()
    placed: list[float] = []

    def by_the_next(began: float) -> bool:
        told = fleet.ask(ReadEvents(since=-300, limit=300))
        assert isinstance(told, Events)
        placed[:] = [event.at for event in told.events if event.name == "job.assigned" and event.at > began]
        return bool(placed)

    with fleet.stream():
        deed(fleet, leader)
        began = time.time()
        fleet.until(lambda: by_the_next(began))
    fleet.heads[leader].start()
    for number, process in enumerate(fleet.etcd.processes):
        if process is None:
            fleet.etcd.start(number)
    return min(placed) - began


def frozen(fleet: SharedFleet, *, known: bool) -> float:
    """Return how long a submit takes that begins when the leader is stopped in its tracks (seconds).

    The leader is the first that the user names; `known`: they are connected already.
    """
    leader, others = fleet.leader_and_others()
    everybody = {one.endpoint: one for one in fleet.remote().coordinators}
    order = tuple(everybody[fleet.heads[name].endpoint] for name in (leader, *others))
    spec = JobSpec(name="f", command=("true",), request=ResourceRequest(gpus=1))
    process = fleet.heads[leader].process
    assert process is not None
    with Client(Remote(coordinators=order, keys=fleet.remote().keys)) as client:
        if known:
            client.ask(ListJobs())
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            client.ask(Submit(spec=spec, token=uuid.uuid4().hex), timeout=30.0)
            took = time.monotonic() - began
        finally:
            process.send_signal(signal.SIGCONT)
    fleet.until(lambda: "leads for the" not in fleet.standing(leader))
    fleet.until_ready()
    return took


def main(arguments: Sequence[str] | None = None) -> list[Verdict]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    rounds = 1 if parser.parse_args(arguments).quick else 7
    if reason := missing_etcd():
        print(f"\nfail-over is not measured: {reason}")
        return []
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="topod-bench-") as folder, contextlib.ExitStack() as stack:
        etcd = EtcdCluster(Path(folder), 3)
        stack.callback(etcd.close)
        etcd.start()
        fleet = stack.enter_context(SharedFleet(Path(folder), etcd))
        print(f"\nfail-over with a lease of {LEASE} s; {rounds} rounds")
        print(head("seconds to the first placement"))
        for name, deed in DEEDS.items():
            times = [failover(fleet, deed) for _ in range(rounds)]
            print(row(name, times), flush=True)
            verdicts.append(Verdict(f"{name}, median", statistics.median(times), GOAL_SECONDS, "s"))
        print(head("seconds that a submit takes"))
        for name, known in (("leader frozen, new connection", False), ("leader frozen, connected", True)):
            times = [frozen(fleet, known=known) for _ in range(rounds)]
            print(row(name, times), flush=True)
            verdicts.append(Verdict(f"{name}, most", max(times), GOAL_SECONDS, "s"))
    return verdicts


if __name__ == "__main__":
    for verdict in main():
        print(verdict.show())

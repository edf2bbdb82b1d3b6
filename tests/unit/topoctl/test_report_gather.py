"""Who is asked for a report of a fleet: several hosts at a time, told in their order whoever answers first."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Barrier
from typing import cast

from topoctl.report.facts import Period
from topoctl.report.gather import AT_ONCE, gather
from topod.errors import DaemonUnavailableError
from topod.protocol import replies as rp
from topod.protocol import requests as rq
from topod.protocol.client import Client
from topod.protocol.views import EventView, FleetHostView

HOSTS = [f"n{number:02}" for number in range(2 * AT_ONCE)]
WELCOME = rp.Welcome(
    version="",
    protocol=1,
    host="",
    emulated=False,
    runtime="",
    runtime_text="",
    pid=1,
    state_dir="",
    events_endpoint="",
    generation=0,
    started_at=0.0,
    fleet=True,
)
JOINED = rp.Events(events=[EventView(seq=5, at=100.0, name="host.joined", job=None, text="")])


class Answers:
    """A coordinator that answers about a host once as many are asked about as may be at a time."""

    def __init__(self) -> None:
        self.together = Barrier(AT_ONCE, timeout=60)

    def ask(self, request: rq.AnyRequest, timeout: float = 0.0) -> rp.AnyReply:
        match request:
            case rq.Hello():
                return WELCOME
            case rq.GetHosts():
                views = [FleetHostView(name=name, state="ready", gpus=8, free_gpus=8) for name in HOSTS]
                return rp.Hosts(hosts=views)
            case rq.AtHost(host=host, request=rq.ReadEvents(since=0)):
                self.together.wait()
                if host == HOSTS[3]:
                    raise DaemonUnavailableError("it is away")
                return JOINED
            case rq.AtHost(request=rq.ListJobs()) | rq.ListJobs():
                return rp.JobLines(jobs=[])
            case rq.AtHost(request=rq.ReadEvents(since=-1)):
                return JOINED
            case _:
                return rp.Events(events=[])


def test_as_many_hosts_as_may_be_are_asked_at_a_time_and_told_in_their_order() -> None:
    answers = Answers()

    @contextmanager
    def connect() -> Iterator[Client]:
        yield cast(Client, answers)

    name, facts = gather(connect, "", Period(since=0.0, until=200.0), 200.0)
    assert (name, facts.gpus) == ("Fleet", 8 * len(HOSTS))
    assert [note.partition(" ")[0] for note in facts.notes] == HOSTS
    assert facts.notes[3] == f"{HOSTS[3]} is missing, except for the number of its GPUs: it is away"

"""Asks for what a report is made of: one host, or a coordinator and its hosts."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Event
from typing import Final

from topoctl.report.facts import Facts, Period
from topoctl.report.html import moment
from topoctl.report.reading import Source, host_facts, merged, queue_facts
from topoctl.session import ask, expect
from topod.errors import TopodError
from topod.protocol.client import Client
from topod.protocol.replies import AnyReply, Events, Host, Hosts, JobLines, Welcome
from topod.protocol.requests import AtHost, GetHost, GetHosts, Hello, HostRequest, ListJobs, ReadEvents
from topod.protocol.views import EventView, FleetHostView

JOBS_MAX: Final = 10_000
"""As many ended jobs as are told at once."""
PIECE: Final = 300
"""Events of one answer: their plans are large."""
SECONDS: Final = 60.0
AT_ONCE: Final = 8
"""So many hosts of a fleet are asked at a time."""
Ask = Callable[[HostRequest], AnyReply]
Connect = Callable[[], AbstractContextManager[Client]]
"""Opens a connection; each is for one thread."""


def gather(connect: Connect, host: str, period: Period, now: float) -> tuple[str, Facts]:
    """Return the name of the host or the fleet, and what happened there.

    `host`: the one that is asked through a coordinator. Raises as `Client.ask` does; a host of a fleet that
    does not answer is a note of the facts.
    """
    with connect() as client:
        if not host:
            welcome = ask(client, Hello(), Welcome)
            if welcome.fleet:
                return "Fleet", _fleet(client, connect, period, now)
            host = welcome.host
        view = ask(client, GetHost(), Host, SECONDS).host
        facts = _host(host, lambda request: client.ask(request, SECONDS), period, now, len(view.gpus))
    return f"Host {host}{' (emulated)' if view.emulated else ''}", facts


def _host(name: str, asked: Ask, period: Period, now: float, gpus: int) -> Facts:
    source, notes = _source(name, asked, period, now, gpus)
    facts = merged(period, [host_facts(source, period), queue_facts(source, period)])
    facts.notes = notes
    return facts


def _fleet(client: Client, connect: Connect, period: Period, now: float) -> Facts:
    """Return the fleet's jobs as its coordinator tells of them, and what its hosts tell of theirs.

    Several hosts are asked at a time; what they tell is put together in the order of the hosts.
    """
    queue, notes = _source("the coordinator", lambda request: client.ask(request, SECONDS), period, now)
    parts = [queue_facts(queue, period)]
    hosts = ask(client, GetHosts(), Hosts, SECONDS).hosts
    if emulated := [host.name for host in hosts if host.emulated]:
        notes.append(f"emulated, with no GPUs of their own: {', '.join(emulated)}")

    ended = Event()

    def told(host: FleetHostView) -> tuple[Facts, list[str]]:
        part = Facts(period=period, gpus=host.gpus or 0)
        if ended.is_set():  # nobody waits for it any more
            return part, []
        try:
            with connect() as own:
                source, more = _source(host.name, _at(own, host.name), period, now, part.gpus)
            return host_facts(source, period), more
        except TopodError as error:
            return part, [f"{host.name} is missing, except for the number of its GPUs: {error.message}"]

    with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="report") as threads:
        try:
            for part, more in threads.map(told, hosts):
                parts.append(part)
                notes += more
        finally:
            ended.set()
    facts = merged(period, parts)
    facts.notes = notes
    return facts


def _at(client: Client, host: str) -> Ask:
    return lambda request: client.ask(AtHost(host=host, request=request), SECONDS)


def _source(name: str, asked: Ask, period: Period, now: float, gpus: int = 0) -> tuple[Source, list[str]]:
    """Return what one daemon tells, and what it cannot tell any more."""
    events, notes = _events(name, asked, period)
    # In this order a job that ends between the questions is told twice, and not never.
    going_on = expect(asked(ListJobs(brief=True)), JobLines).jobs
    ended = expect(asked(ListJobs(ended=True, limit=JOBS_MAX, brief=True)), JobLines).jobs
    if len(ended) == JOBS_MAX and (ended[0].ended_at or 0.0) > period.since:
        notes.append(f"{name}: of the jobs that ended only the last {JOBS_MAX:,} are known in full")
    jobs = {job.id: job for job in (*going_on, *ended)}
    return Source(name=name, now=now, jobs=jobs, events=events, gpus=gpus), notes


def _events(name: str, asked: Ask, period: Period) -> tuple[list[EventView], list[str]]:
    """Return all events from the beginning of the period on, and whether earlier ones are gone."""

    def read(since: int, limit: int) -> list[EventView]:
        return expect(asked(ReadEvents(since=since, limit=limit)), Events).events

    oldest, newest = read(0, 1), read(-1, 1)
    if not oldest or not newest:
        return [], []
    notes = []
    if oldest[0].seq > 1 and oldest[0].at > period.since:
        notes.append(f"{name} keeps no events from before {moment(oldest[0].at, None)}")
    after = _before(read, oldest[0].seq - 1, newest[0].seq, period.since)
    found: list[EventView] = []
    while after < newest[0].seq and (piece := read(after, PIECE)):
        found += piece
        after = piece[-1].seq
    return found, notes


def _before(read: Callable[[int, int], list[EventView]], low: int, high: int, at: float) -> int:
    """Return a number after which all events are from that moment or later, by halving."""
    while low < high:
        middle = (low + high) // 2
        event = read(middle, 1)
        if event and event[0].at < at:
            low = event[0].seq
        else:
            high = middle
    return low

"""What only a job's host can answer, a log or a command beside a job, is passed on to it."""

from collections.abc import Awaitable, Callable, Container
from typing import Final, NamedTuple

import msgspec

from topod.coordinator.hosts import HostAwayError, HostRefusedError, Hosts
from topod.errors import ConflictError, NotFoundError
from topod.fleet.states import ENDED, Earlier, FleetJob, FleetJobId, FleetState
from topod.protocol import replies as rp
from topod.protocol import requests as rq

WAIT_SECONDS_MAX: Final = 60.0
ANSWER_SECONDS: Final = 10.0
"""How long a host may take to answer, beside what it is told to wait."""
SESSIONS_MAX: Final = 1024
MOVES_SECONDS: Final = 50.0
"""What the search for moves on a large host may take."""


class Passing:
    """Asks hosts on behalf of users. Used from the event loop only."""

    def __init__(
        self,
        hosts: Hosts,
        find: Callable[[int], Awaitable[FleetJob]],
        until: Callable[[Callable[[FleetState], bool], float], Awaitable[None]],
    ) -> None:
        """`find` returns a job or raises `NotFoundError`; `until` waits for something to hold."""
        self._hosts = hosts
        self._find = find
        self._until = until
        self._executions: dict[str, tuple[str, str]] = {}
        """The host of each command beside a job, and whose command it is, by session."""

    async def read_log(self, request: rq.ReadLog) -> rp.AnyReply:
        """Pass the question on to the job's host, once it has the job."""
        wait = max(0.0, min(request.wait, WAIT_SECONDS_MAX))
        ident = FleetJobId(request.job)

        def begun(state: FleetState) -> bool:
            job = state.jobs.get(ident)
            return job is None or _there(job, request.rank) is not None

        job = await self._find(request.job)
        if wait and job.state not in ENDED and _output(job, request.attempt, request.rank) is None:
            await self._until(begun, wait)
            wait = 0.0
            job = await self._find(request.job)
        found = _output(job, request.attempt, request.rank)
        if found is None:
            if job.state not in ENDED:
                # Nothing is printed yet of the assignment that comes.
                return rp.LogChunk(attempt=0, data=b"", next_offset=max(0, request.offset), ended=False)
            raise NotFoundError(f"{job.label} was never started, so there is no output of it")
        attempt = None if request.attempt is None else request.attempt - found.before
        question = msgspec.structs.replace(request, job=found.local, attempt=attempt, wait=wait, rank=None)
        try:
            chunk = await self._hosts.ask(found.host, job.spec.user, question, wait + ANSWER_SECONDS)
        except HostAwayError as away:
            raise HostAwayError(
                f"the output of {job.label} lies on {found.host}, as job {found.local} there: {away.message}",
                hint="topoctl hosts",
            ) from None
        except HostRefusedError as refused:
            if refused.code != NotFoundError.code:
                raise
            raise NotFoundError(
                f"the output of {job.label} is not kept on {found.host} any more: {refused.message}"
            ) from None
        if isinstance(chunk, rp.LogChunk) and chunk.attempt:
            return msgspec.structs.replace(chunk, attempt=chunk.attempt + found.before)
        return chunk

    async def at_host(self, request: rq.AtHost, known: Container[str]) -> rp.AnyReply:
        """Ask one of the `known` hosts what a user wants to know of it, or wants it to do."""
        if request.host not in known:
            raise NotFoundError(f"no host {request.host} in this fleet", hint="topoctl hosts lists them")
        asked = request.request
        wait = MOVES_SECONDS if isinstance(asked, rq.PlanMoves | rq.MakeMoves) else 0.0
        if isinstance(asked, rq.WaitJob):
            wait = max(0.0, min(asked.timeout, WAIT_SECONDS_MAX))
            asked = msgspec.structs.replace(asked, timeout=wait)
        if isinstance(asked, rq.Follow):
            wait = max(0.0, min(asked.seconds, WAIT_SECONDS_MAX))
            asked = msgspec.structs.replace(asked, seconds=wait)
        return await self._hosts.ask(request.host, request.by, asked, wait + ANSWER_SECONDS)

    async def execute(self, request: rq.Exec | rq.ExecTalk | rq.ExecStop) -> rp.AnyReply:
        """Pass a command beside a job on to the job's host."""
        if isinstance(request, rq.Exec):
            job = await self._find(request.job)
            there = _there(job, request.rank)
            if there is None or job.state in ENDED:
                raise ConflictError(f"{job.label} does not run: its state is {job.state.value}")
            host, local = there
            question = msgspec.structs.replace(request, job=local, rank=None)
            begun = await self._hosts.ask(host, request.by or job.spec.user, question)
            if isinstance(begun, rp.ExecBegun):
                while len(self._executions) >= SESSIONS_MAX:
                    del self._executions[next(iter(self._executions))]
                self._executions[begun.session] = host, request.by
            return begun
        host, user = self._executions.get(request.session, ("", ""))
        if not host:
            raise NotFoundError(
                "that command is not known here: it has ended, or the coordinator was started anew"
            )
        wait = request.wait if isinstance(request, rq.ExecTalk) else 0.0
        reply = await self._hosts.ask(host, user, request, wait + ANSWER_SECONDS)
        if not isinstance(reply, rp.ExecOutput) or reply.ended:
            self._executions.pop(request.session, None)
        return reply


class _Lies(NamedTuple):
    """Where the output of an attempt lies."""

    host: str
    local: int
    """The job's number there."""
    before: int
    """How often it was started before it came there."""


def _output(job: FleetJob, attempt: int | None, rank: int | None) -> _Lies | None:
    """Return where the output of an attempt lies; by default of the last that was started.

    None: of one that is still to come. Raises `NotFoundError` for one that there never was, or so long ago
    that nobody remembers where.
    """
    last = job.earlier[-1] if job.earlier else None
    before = 0 if last is None else last.before + last.starts
    there, reports = _there(job, rank), [m.report for m in job.members if m.report is not None]
    starts = max((max(report.starts, report.attempt) for report in reports), default=0)
    present = None if there is None else _Lies(*there, before)
    if attempt is None:
        return present if last is None or starts else _of_rank(job, last, rank)
    if attempt > before:
        if present is not None and attempt > before + max(1, starts):
            raise NotFoundError(f"{job.label} has no attempt {attempt}; its last is {before + starts}")
        return present
    found = next((one for one in job.earlier if one.before < attempt <= one.before + one.starts), None)
    if found is None:
        raise NotFoundError(
            f"where the output of attempt {attempt} of {job.label} lies is not known any more"
        )
    return _of_rank(job, found, rank)


def _of_rank(job: FleetJob, earlier: Earlier, rank: int | None) -> _Lies:
    """Return where a member of an assignment that is over ran."""
    for member in earlier.members:
        if member.rank == (rank or 0):
            return _Lies(member.host, member.local, earlier.before)
    raise NotFoundError(f"{job.label} is not known to have begun on rank {rank or 0} in that attempt")


def _there(job: FleetJob, rank: int | None) -> tuple[str, int] | None:
    """Return the host that has a job, the first one or that of a rank, and its number there.

    Raises `NotFoundError` for a rank that the job never has.
    """
    if rank is not None and not 0 <= rank < job.request.hosts:
        some = "host" if job.request.hosts == 1 else "hosts"
        raise NotFoundError(f"{job.label} asks for {job.request.hosts} {some}: there is no rank {rank}")
    for member in job.members:
        if member.report is not None and member.report.local and rank in (None, member.rank):
            return member.host, member.report.local
    return None

"""What only a job's host can answer, a log or a command beside a job, is passed on to it."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from topod.coordinator.hosts import Hosts
from topod.errors import ConflictError, NotFoundError
from topod.fleet.states import ENDED, FleetJob, FleetJobId, FleetState
from topod.protocol import replies as rp
from topod.protocol import requests as rq

WAIT_SECONDS_MAX: Final = 60.0
ANSWER_SECONDS: Final = 10.0
"""How long a host may take to answer, beside what it is told to wait."""
SESSIONS_MAX: Final = 1024


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
            return job is None or _there(job) is not None

        job = await self._find(request.job)
        if wait and job.state not in ENDED and _there(job) is None:
            await self._until(begun, wait)
            wait = 0.0
            job = await self._find(request.job)
        there = _there(job)
        if there is None:
            if job.state not in ENDED:
                # Nothing is printed yet of the assignment that comes.
                return rp.LogChunk(attempt=0, data=b"", next_offset=max(0, request.offset), ended=False)
            raise NotFoundError(f"{job.label} ended on no host, so there is no output of it here")
        host, local = there
        question = msgspec.structs.replace(request, job=local, wait=wait)
        return await self._hosts.ask(host, job.spec.user, question, wait + ANSWER_SECONDS)

    async def execute(self, request: rq.Exec | rq.ExecTalk | rq.ExecStop) -> rp.AnyReply:
        """Pass a command beside a job on to the job's host."""
        if isinstance(request, rq.Exec):
            job = await self._find(request.job)
            there = _there(job)
            if there is None or job.state in ENDED:
                raise ConflictError(f"{job.label} does not run: its state is {job.state.value}")
            host, local = there
            question = msgspec.structs.replace(request, job=local)
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


def _there(job: FleetJob) -> tuple[str, int] | None:
    """Return the first host that has a job, and its number there."""
    for member in job.members:
        if member.report is not None and member.report.local:
            return member.host, member.report.local
    return None

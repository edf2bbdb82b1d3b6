"""Commands that users run beside their jobs (`topoctl exec`): a session each, while somebody listens.

They are no part of the state: a topod that ends takes them with it, and the client is told that.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from topod.errors import ConflictError, NotFoundError, UsageError
from topod.lifecycle.states import Job, JobState
from topod.ports import ContainerRuntime, Execution
from topod.protocol import replies as rp
from topod.protocol import requests as rq
from topod.shell.logs import Key

SESSIONS_MAX: Final = 32
WAIT_SECONDS_MAX: Final = 10.0
SILENCE_SECONDS: Final = 30.0
"""A client that has not asked for so long has left."""
LOOK_SECONDS: Final = 5.0

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class _Session:
    execution: Execution
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    heard_at: float = field(default_factory=time.monotonic)


class Sessions:
    """All commands beside jobs. Used from the event loop only."""

    def __init__(self, runtime: ContainerRuntime) -> None:
        self._runtime = runtime
        self._sessions: dict[str, _Session] = {}
        # One thread for each, since each may wait for output.
        self._threads = ThreadPoolExecutor(SESSIONS_MAX, "exec")
        self._watch: asyncio.Task[None] | None = None

    async def answer(
        self, request: rq.Exec | rq.ExecTalk | rq.ExecStop, find: Callable[[int], Awaitable[Job]]
    ) -> rp.ExecBegun | rp.ExecOutput | rp.Done:
        """Return the reply to a request about a command; `find` returns a job or raises `NotFoundError`."""
        match request:
            case rq.Exec():
                return await self.begin(await find(request.job), request)
            case rq.ExecTalk():
                return await self.talk(request)
            case rq.ExecStop():
                return await self.stop(request)

    async def begin(self, job: Job, request: rq.Exec) -> rp.ExecBegun:
        """Start a command beside a job. Raises `ConflictError` when the job does not run."""
        if not request.command or not request.command[0]:
            raise UsageError("nothing to run: give a command")
        if any("\0" in word for word in request.command):
            raise UsageError("the command holds a NUL character")
        if job.state not in (JobState.RUNNING, JobState.STOPPING) or job.handle is None:
            raise ConflictError(f"{job.label} does not run: its state is {job.state.value}")
        if len(self._sessions) >= SESSIONS_MAX:
            raise ConflictError(f"{SESSIONS_MAX} commands run beside jobs, and no more may at a time")
        start = partial(self._runtime.execute, job.handle, tuple(request.command), stdin=request.stdin)
        session = secrets.token_hex(16)
        self._sessions[session] = _Session(await self._in_thread(start))
        extra = {Key.JOB: job.id, Key.TEXT: f"{request.by or 'somebody'}: {request.command[0]}"}
        log.info("exec.begun", extra=extra)
        if self._watch is None:
            self._watch = asyncio.create_task(self._end_the_abandoned(), name="exec sessions")
        return rp.ExecBegun(session=session)

    async def talk(self, request: rq.ExecTalk) -> rp.ExecOutput:
        """Pass input on and return what came, or that it is over; the session is gone then."""
        session = self._find(request.session)
        wait = max(0.0, min(request.wait, WAIT_SECONDS_MAX))
        async with session.lock:
            session.heard_at = time.monotonic() + wait
            reply = await self._in_thread(partial(_exchange, session.execution, request, wait))
        session.heard_at = time.monotonic()
        if reply.ended:
            self._sessions.pop(request.session, None)
        return reply

    async def stop(self, request: rq.ExecStop) -> rp.Done:
        """End a command."""
        await self._end(self._find(request.session), request.session)
        return rp.Done(text="the command is ended")

    async def close(self) -> None:
        """End all commands."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        ends = [self._end(session, key) for key, session in list(self._sessions.items())]
        await asyncio.gather(*ends, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _find(self, key: str) -> _Session:
        session = self._sessions.get(key)
        if session is None:
            raise NotFoundError("that command is not known here: it has ended, or topod was started anew")
        return session

    async def _end(self, session: _Session, key: str) -> None:
        self._sessions.pop(key, None)
        async with session.lock:
            await self._in_thread(session.execution.stop)

    async def _end_the_abandoned(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            silent = time.monotonic() - SILENCE_SECONDS
            for key, session in list(self._sessions.items()):
                if session.heard_at < silent:
                    log.info("exec.abandoned")
                    await self._end(session, key)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _exchange(execution: Execution, request: rq.ExecTalk, wait: float) -> rp.ExecOutput:
    taken = execution.write(request.data)
    if request.eof and taken == len(request.data):
        execution.close_input()
    # What was not taken must be offered again soon.
    out, err = execution.read(wait if taken == len(request.data) else min(wait, 0.1))
    ended = execution.ended and not out and not err
    code = execution.exit_code if ended else None
    return rp.ExecOutput(stdout=out, stderr=err, taken=taken, ended=ended, exit_code=code)

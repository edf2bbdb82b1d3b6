"""Pieces of a job's output, and the wait for one that is not there yet."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from topod.daemon import joblog
from topod.daemon.mailbox import Mailbox
from topod.daemon.patience import Patience
from topod.errors import NotFoundError
from topod.lifecycle.states import Job
from topod.ports import ContainerRuntime
from topod.protocol.replies import LogChunk
from topod.protocol.requests import ReadLog

POLL_SECONDS: Final = (0.002, 0.1)
"""Shortest and longest pause between looks at a log that may grow."""
POLL_SHARE: Final = 0.1
"""... and between them this share of the time for which it has been silent."""


class LogReader:
    """Answers `ReadLog`. Used from the event loop only."""

    def __init__(
        self,
        mailbox: Mailbox,
        runtime: ContainerRuntime,
        patience: Patience,
        find: Callable[[int], Awaitable[Job]],
    ) -> None:
        """`find` returns a job, ended or not, or raises `NotFoundError`."""
        self._mailbox = mailbox
        self._runtime = runtime
        self._patience = patience
        self._find = find

    async def read(self, request: ReadLog) -> LogChunk:
        """Return a piece of a job's output; wait for one if asked to."""
        job = await self._find(request.job)
        if request.attempt is not None and not 0 <= request.attempt <= job.attempt:
            raise NotFoundError(f"{job.label} has no attempt {request.attempt}; its last is {job.attempt}")
        silent = time.monotonic()
        end = silent + self._patience.bounded(request.wait)
        while True:
            # Asked before reading: what was printed until the end is then in the piece, or in the next one.
            job = await self._find(request.job)
            attempt = (
                joblog.latest_attempt(job, self._runtime) if request.attempt is None else request.attempt
            )
            complete = joblog.is_complete(job, attempt)
            path = self._runtime.log_path(job.id, attempt)
            piece = await asyncio.to_thread(joblog.read_piece, path, request.offset, request.limit)
            if piece.data or complete or time.monotonic() >= end:
                return LogChunk(
                    attempt=attempt,
                    data=piece.data,
                    next_offset=piece.next_offset,
                    ended=complete and not piece.data,
                    skipped=piece.skipped,
                    gone=complete and not piece.exists and bool(job.starts),
                )
            if not joblog.has_begun(job, attempt):
                begun = partial(joblog.begun_in, job=job.id, attempt=attempt)
                await self._patience.until(begun, end - time.monotonic())
                silent = time.monotonic()
            shortest, longest = POLL_SECONDS
            pause = min(longest, max(shortest, (time.monotonic() - silent) * POLL_SHARE))
            if joblog.is_launching(job, attempt):
                # The start may take long, and the first line comes soon after it.
                launched = partial(joblog.launched_in, job=job.id, attempt=attempt)
                await self._mailbox.until(launched, pause)
                if launched(self._mailbox.state):
                    silent = time.monotonic()
            else:
                await asyncio.sleep(pause)

"""A job that a terminal is attached to: its output as it comes, its states, and what signals do to it.

Rule: whatever happens here, the job's fate is decided by topod. A broken connection, a restart of topod, a
closed terminal leave it running; only an interrupt asks topod to stop it.
"""

import os
import re
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, Self

from topoctl import exit_codes
from topoctl.render.jobs import ENDED
from topoctl.session import ask_patiently, note, one_job
from topoctl.waiting import exit_status
from topod.protocol.client import Client, RemoteError
from topod.protocol.replies import Events, Jobs, LogChunk
from topod.protocol.requests import Cancel, GetJob, ReadEvents, ReadLog, WaitJob
from topod.protocol.units import format_size
from topod.protocol.views import JobView

CHUNK: Final = 256 * 1024
WAIT_SECONDS: Final = 1.0
"""How long one question waits: so long a change of the job's reason may stay unnoticed."""
ASK_SECONDS: Final = 8.0
_UNSAID: Final = frozenset(
    {"job.submitted", "job.placed", "job.signalled", *(f"job.{state}" for state in ENDED)}
)
"""Events of a job that say nothing to who waits for it, or what is said at the end."""
_DIGITS = re.compile(r"\d+")
_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class Attached:
    """Follows one job to its end; after an interrupt `follow` can be called again and goes on."""

    def __init__(self, client: Client, view: JobView, interrupts: "Interrupts", *, quiet: bool) -> None:
        self._client = client
        self._interrupts = interrupts
        self._job = view.id
        self._quiet = quiet
        self._attempt = 1
        self._offset = 0
        self._seen = 0
        self._told = ""

    def follow(self) -> JobView:
        """Print what every attempt of the job prints, and its states; return it once it has ended."""
        while True:
            view = self._ask(GetJob(job=self._job))
            self._tell(view)
            # A starting attempt has printed nothing; one that never ran has an empty output.
            last = view.attempt if view.state != "starting" else view.attempt - 1
            while self._attempt <= last:
                self._print()
                self._attempt, self._offset = self._attempt + 1, 0
            if view.state in ENDED:
                return view
            self._ask(WaitJob(job=self._job, states=["running", "stopping"], timeout=WAIT_SECONDS))

    def cancel(self, by: str) -> None:
        """Ask topod to stop the job for good; no error when it has ended."""
        try:
            ask_patiently(self._client, Cancel(jobs=[self._job], by=by), Jobs, ASK_SECONDS)
        except RemoteError as refused:
            if refused.code != "conflict":
                raise

    def _print(self) -> None:
        """Print the rest of one attempt, until nothing more will come."""
        while True:
            request = ReadLog(
                job=self._job, attempt=self._attempt, offset=self._offset, limit=CHUNK, wait=WAIT_SECONDS
            )
            chunk = ask_patiently(self._client, request, LogChunk, ASK_SECONDS)
            tell_skipped(self._job, chunk)
            self._offset = chunk.next_offset - len(chunk.data)
            self._write(memoryview(chunk.data))
            if chunk.ended:
                return
            if not chunk.data:
                self._tell(self._ask(GetJob(job=self._job)))

    def _write(self, data: memoryview) -> None:
        """Write to stdout; an interrupt comes between two pieces, so that none is lost or printed twice."""
        stdout = sys.stdout.fileno()
        ready = select.poll()
        ready.register(stdout, select.POLLOUT)
        while data:
            ready.poll()
            with self._interrupts.held():
                # So much never blocks once there is room.
                count = os.write(stdout, data[: select.PIPE_BUF])
                self._offset += count
            data = data[count:]

    def _ask(self, request: GetJob | WaitJob) -> JobView:
        return one_job(ask_patiently(self._client, request, Jobs, ASK_SECONDS))

    def _tell(self, view: JobView) -> None:
        """Say what happened to the job since the last time, and what it waits for if that is news.

        Numbers in a reason that only count down are no news.
        """
        if self._quiet:
            return
        request = ReadEvents(since=self._seen, job=self._job)
        for event in ask_patiently(self._client, request, Events, ASK_SECONDS).events:
            self._seen = event.seq
            if event.name not in _UNSAID:
                note(f"topoctl: {event.text}")
        reason = _DIGITS.sub("", view.reason)
        if view.state == "pending" and reason not in ("", self._told):
            note(f"topoctl: job {view.id} pending: {view.reason}")
        self._told = reason


class Interrupts:
    """While it is entered, SIGINT and SIGTERM raise `KeyboardInterrupt`, or wait while `deferred` is set.

    A signal that the caller ignores (a background job of a script) stays ignored.
    """

    def __init__(self) -> None:
        self.deferred = True
        self.number = 0
        """The last one that came; 0 for none."""
        self._waits = False
        self._before: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._came)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def deliver(self) -> None:
        """End the deferral; raises `KeyboardInterrupt` for a signal that came meanwhile."""
        self.deferred = False
        if self._waits:
            self._waits = False
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let an interrupt wait for the end of what is done meanwhile, which must not block."""
        self.deferred = True
        yield
        self.deliver()

    def _came(self, number: int, _: FrameType | None) -> None:
        self.number = number
        if not self.deferred:
            raise KeyboardInterrupt
        self._waits = True


def tell_skipped(job: int, chunk: LogChunk) -> None:
    """Say on stderr that a part of the output is no longer there."""
    if chunk.skipped:
        note(f"topoctl: {format_size(chunk.skipped)} of the output of job {job} are no longer kept")
    if chunk.gone:
        note(f"topoctl: the output of job {job}, attempt {chunk.attempt}, is no longer kept")


def run_status(job: JobView, interrupt: int) -> int:
    """Return what an attached run ends with: the job's own exit code, as far as it has one.

    A job that was never started gives 125, 126 or 127, as `docker run` does; one that was stopped because of
    `interrupt` (a signal's number) gives 128 + that.
    """
    if interrupt and job.state == "cancelled":
        return 128 + interrupt
    if job.state == "failed" and job.exit_code is None:
        return _not_started(job.reason.lower())
    if job.state == "lost":
        return exit_codes.NOT_STARTED
    return exit_status(job) or exit_codes.OK


def _not_started(reason: str) -> int:
    # The engine says only in words why it could not run the command.
    if "executable file not found" in reason or "no such file or directory" in reason:
        return exit_codes.COMMAND_NOT_FOUND
    return exit_codes.CANNOT_RUN if "permission denied" in reason else exit_codes.NOT_STARTED

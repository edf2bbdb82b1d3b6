"""Notices at once that shims ended: a pidfd becomes readable when its process ends (pidfd_open(2))."""

import logging
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

from topod.adapters.process_attempt import Attempt, attempts
from topod.ports import ContainerStatus, Exit

log = logging.getLogger(__name__)

RESYNC_SECONDS = 5.0
RETRY_SECONDS = 1.0


class ExitWatcher:
    """One thread that reports each attempt under `root` that ended, also those that ended before."""

    def __init__(self, root: Path, on_exit: Callable[[Exit], None]) -> None:
        self._root = root
        self._on_exit = on_exit
        self._reported: set[str] = set()
        self._pidfds: dict[int, int] = {}
        self._poll = select.poll()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake_read, select.POLLIN)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="process exits", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look again: an attempt was started."""
        try:
            os.write(self._wake_write, b"w")
        except BlockingIOError:
            return  # as many wake-ups as the pipe holds are waiting

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self.wake()
        self._thread.join()
        for descriptor in (self._wake_read, self._wake_write, *self._pidfds.values()):
            os.close(descriptor)

    def _run(self) -> None:
        while not self._stop.is_set():
            handled = False
            try:
                handled = self._look()
            except OSError as error:
                log.warning("the processes of jobs cannot be looked at: %s", error)
            pause = RESYNC_SECONDS if handled else RETRY_SECONDS
            ready = {descriptor for descriptor, _ in self._poll.poll(pause * 1000)}
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            for pid in [pid for pid, descriptor in self._pidfds.items() if descriptor in ready]:
                descriptor = self._pidfds.pop(pid)
                self._poll.unregister(descriptor)
                os.close(descriptor)

    def _look(self) -> bool:
        """Report every ended attempt not yet reported; return whether all reports were handled."""
        handled = True
        found = list(attempts(self._root))
        self._reported &= {attempt.handle for attempt in found}
        for attempt in found:
            if attempt.handle in self._reported:
                continue
            # Watched before it is looked at: an end in between is noticed by one or the other.
            self._keep_watching(attempt)
            seen = attempt.observe()
            if seen is None or seen.status is not ContainerStatus.EXITED:
                continue
            try:
                self._on_exit(
                    Exit(job=seen.job, attempt=seen.attempt, handle=seen.handle, exit_code=seen.exit_code)
                )
            except Exception:
                log.exception("the exit of job %d could not be handled; it will be reported again", seen.job)
                handled = False
            else:
                self._reported.add(attempt.handle)
        return handled

    def _keep_watching(self, attempt: Attempt) -> None:
        for name in ("claim", "started"):
            pid = attempt.living(name)
            if pid is None or pid in self._pidfds:
                continue
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            self._pidfds[pid] = descriptor
            self._poll.register(descriptor, select.POLLIN)

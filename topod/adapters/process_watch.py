"""Notices at once that shims ended: a pidfd becomes readable when its process ends (pidfd_open(2))."""

import logging
import os
import select
import threading
import time
from collections import deque
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
        self._pidfds: dict[int, tuple[int, str]] = {}
        self._woken: deque[str] = deque()
        self._poll = select.poll()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake_read, select.POLLIN)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="process exits", daemon=True)
        self._thread.start()

    def wake(self, handle: str | None = None) -> None:
        """Look again at an attempt that was started, or at all of them."""
        if handle is not None:
            self._woken.append(handle)
        try:
            os.write(self._wake_write, b"w")
        except BlockingIOError:
            return  # as many wake-ups as the pipe holds are waiting

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self.wake()
        self._thread.join()
        for descriptor in (
            self._wake_read,
            self._wake_write,
            *(descriptor for descriptor, _ in self._pidfds.values()),
        ):
            os.close(descriptor)

    def _run(self) -> None:
        full_look, handles = 0.0, set[str]()
        while not self._stop.is_set():
            now, handled = time.monotonic(), False
            try:
                if now >= full_look:
                    handled = self._look(list(attempts(self._root)), everything=True)
                    full_look = now + (RESYNC_SECONDS if handled else RETRY_SECONDS)
                elif not self._look([Attempt(self._root / handle) for handle in sorted(handles)]):
                    full_look = min(full_look, now + RETRY_SECONDS)
            except OSError as error:
                log.warning("the processes of jobs cannot be looked at: %s", error)
                full_look = now + RETRY_SECONDS
            handles = self._next(max(0.0, full_look - time.monotonic()))

    def _next(self, seconds: float) -> set[str]:
        """Return the attempts of which something happened, waiting for that at most so long."""
        ready = {descriptor for descriptor, _ in self._poll.poll(seconds * 1000)}
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        handles = set()
        while self._woken:
            handles.add(self._woken.popleft())
        for pid in [pid for pid, (descriptor, _) in self._pidfds.items() if descriptor in ready]:
            descriptor, handle = self._pidfds.pop(pid)
            self._poll.unregister(descriptor)
            os.close(descriptor)
            handles.add(handle)
        return handles

    def _look(self, found: list[Attempt], *, everything: bool = False) -> bool:
        """Report the attempts of these that ended and are not yet reported; say if all could be handled."""
        handled = True
        if everything:
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
        # The shim ends after the job; the job itself is watched where its shim was killed.
        for name in ("claim", "started"):
            pid = attempt.living(name)
            if pid is None:
                continue
            if pid not in self._pidfds:
                try:
                    descriptor = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
                self._pidfds[pid] = (descriptor, attempt.handle)
                self._poll.register(descriptor, select.POLLIN)
            return

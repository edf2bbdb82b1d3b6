"""Starts shims, and keeps one ready: a Python interpreter takes longer to start than most jobs do."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

from topod.adapters import process_shim
from topod.errors import RuntimeUnavailableError

START_SECONDS = 20.0
REFILL_SECONDS = 0.25
"""A used shim is replaced after so long: not while the job that it starts has its first moments."""


class Launcher:
    """Starts a shim for each attempt. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spare: subprocess.Popen[bytes] | None = None
        self._refill: threading.Timer | None = None
        self._keeps_one = False

    def keep_one_ready(self) -> None:
        """From now on have a shim waiting; it ends by itself when this process does."""
        with self._lock:
            self._keeps_one = True
        self._refill_in(0.0)

    def launch(self, directory: Path) -> None:
        """Have the attempt of this directory claimed and started.

        Raises `RuntimeUnavailableError` when no shim could be started.
        """
        with self._lock:
            spare, self._spare = self._spare, None
        try:
            if spare is not None:
                answer, _ = _tell(spare, directory)
                self._refill_in(REFILL_SECONDS)
                if answer:
                    return
                # Somebody killed it; the claim decides whether it had begun.
            answer, complaint = _tell(_spawn(), directory)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeUnavailableError(
                f"the process runtime failed while starting {directory.name}: {error}", hint="see topod's log"
            ) from error
        if not answer:
            last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
            raise RuntimeUnavailableError(
                f"the shim of attempt {directory.name} failed: {last or 'no answer'}"
            )

    def close(self) -> None:
        """Keep none ready any more."""
        with self._lock:
            self._keeps_one = False
            spare, self._spare = self._spare, None
            refill, self._refill = self._refill, None
        if refill is not None:
            refill.cancel()
            refill.join()
        if spare is not None:
            _drop(spare)

    def _refill_in(self, seconds: float) -> None:
        with self._lock:
            if self._keeps_one and (self._refill is None or not self._refill.is_alive()):
                self._refill = threading.Timer(seconds, self._prepare)
                self._refill.daemon = True
                self._refill.start()

    def _prepare(self) -> None:
        # Without a spare a start takes longer, and tells what is wrong.
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            spare = _spawn()
            # The first process goes when the shim proper is ready; nothing is left to be reaped then.
            spare.wait(START_SECONDS)
            with self._lock:
                if self._keeps_one and self._spare is None:
                    self._spare = spare
                    return
            _drop(spare)


def _spawn() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - topod's own program
        [sys.executable, "-I", "-S", process_shim.__file__],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _tell(shim: "subprocess.Popen[bytes]", directory: Path) -> tuple[bytes, bytes]:
    """Tell a shim what to start; return what it says on stdout and stderr."""
    try:
        return shim.communicate(os.fsencode(directory) + b"\n", START_SECONDS)
    except subprocess.TimeoutExpired:
        shim.kill()
        _drop(shim)
        raise


def _drop(shim: "subprocess.Popen[bytes]") -> None:
    """Let a shim go that was told nothing: it ends when nobody can tell it any more."""
    for pipe in (shim.stdin, shim.stdout, shim.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    shim.wait()

"""Fault points: where tests end the daemon as a power cut would.

`topod --crash-at N` (or TOPOD_CRASH_AT=N) makes the process kill itself with SIGKILL at the N-th passage of
a checkpoint, counted from the start of the process over all of them: before and after each commit, each
effect and each answer to one. Without it a checkpoint is one comparison.
"""

import os
import signal
import threading

_lock = threading.Lock()
_left: int | None = None


def arm(passages: int | None) -> None:
    """Kill this process at that many passages from now; None disarms."""
    global _left  # noqa: PLW0603 - one process, one countdown
    _left = passages


def checkpoint(name: str) -> None:
    """Pass a point at which a crash must lose nothing; `name` is for the reader."""
    global _left  # noqa: PLW0603 - one process, one countdown
    if _left is None:
        return
    with _lock:
        _left -= 1
        if _left <= 0:
            os.write(2, f"topod: crashed on request at checkpoint {name}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

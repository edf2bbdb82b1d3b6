"""Runs `nvidia-smi topo -m`, the fallback where NVML cannot be asked and the second opinion where it can.

Rule: bounded in time and bytes. It runs in a process group of its own that is killed as a whole; a process
that cannot die (uninterruptible sleep in the driver) is left behind, not waited for.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from typing import Final

from topod.errors import ProbeError

MAX_BYTES = 1 << 20
REAP_SECONDS = 0.2
_LEFT_BEHIND: Final[list[subprocess.Popen[bytes]]] = []
"""Processes that did not die in time; reaped on later calls."""


def topology_matrix(timeout: float = 10.0, *, program: str = "nvidia-smi") -> str:
    """Return what `nvidia-smi topo -m` prints.

    Raises `ProbeError` with the first line of its error where it is not installed, fails, or takes longer
    than `timeout` seconds.
    """
    _LEFT_BEHIND[:] = [process for process in _LEFT_BEHIND if process.poll() is None]
    command = f"{program} topo -m"
    try:
        process = subprocess.Popen(  # noqa: S603 - a fixed command, no shell
            [program, "topo", "-m"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # it prints its errors to either
            start_new_session=True,
            env=os.environ | {"LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise ProbeError(f"{program} is not installed") from None
    except OSError as error:
        raise ProbeError(f"{command} cannot be started: {error.strerror}") from None
    try:
        output, status = _collect(process, time.monotonic() + timeout)
    finally:
        _end(process)
    if status is None:
        raise ProbeError(f"{command} did not end within {timeout:g} s")
    text = output.decode(errors="replace")
    if status != 0:
        first = next((line.strip() for line in text.splitlines() if line.strip()), "no message")
        raise ProbeError(f"{command} failed with status {status}: {first[:200]}")
    return text


def _collect(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, int | None]:
    """Return the output and the exit status; the status is None when time ran out."""
    assert process.stdout is not None
    output, ready = bytearray(), select.poll()
    ready.register(process.stdout, select.POLLIN)
    while len(output) < MAX_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not ready.poll(left * 1000):
            return bytes(output), None
        chunk = os.read(process.stdout.fileno(), 1 << 16)
        if not chunk:
            break
        output += chunk
    try:
        return bytes(output), process.wait(timeout=max(deadline - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        return bytes(output), None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process group, and wait for the process no longer than a moment."""
    assert process.stdout is not None
    process.stdout.close()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(timeout=REAP_SECONDS)
    except subprocess.TimeoutExpired:
        _LEFT_BEHIND.append(process)

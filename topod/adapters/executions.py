"""Commands that run beside a job, with their streams: as plain processes, and inside a container.

Used by one thread at a time. Nothing here waits longer than it was told to.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from typing import Any, Final

import psutil

CHUNK: Final = 1 << 16
KILL_AFTER_SECONDS: Final = 2.0
"""From SIGTERM to SIGKILL when a command is stopped."""
_HEADER: Final = 8
_STDERR: Final = 2


class ProcessExecution:
    """A child process with three pipes."""

    def __init__(self, process: "subprocess.Popen[bytes]", on_end: Callable[[int], None]) -> None:
        """Take over the process, which leads a session; `on_end` is called with its PID when it is over."""
        self._process = process
        self._on_end = on_end
        self._open = {stream.fileno(): stream for stream in (process.stdout, process.stderr) if stream}
        self.ended = False
        self.exit_code: int | None = None
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)

    def write(self, data: bytes) -> int:
        """Give the command input; return how much of it was taken. What it no longer reads is dropped."""
        stdin = self._process.stdin
        if stdin is None or stdin.closed or not data:
            return len(data)
        try:
            return os.write(stdin.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def close_input(self) -> None:
        """Let the command see the end of its input."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def read(self, seconds: float) -> tuple[bytes, bytes]:
        """Return what came on stdout and stderr, waiting up to `seconds` for something."""
        out, err = b"", b""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        for descriptor in self._open:
            poll.register(descriptor, select.POLLIN)
        while self._open and not out and not err:
            left = deadline - time.monotonic()
            ready = poll.poll(max(0.0, left) * 1000)
            for descriptor, _ in ready:
                data = os.read(descriptor, CHUNK)
                if not data:
                    poll.unregister(descriptor)
                    self._open.pop(descriptor).close()
                elif self._process.stderr is not None and descriptor == self._process.stderr.fileno():
                    err += data
                else:
                    out += data
            if not ready and left <= 0:
                break
        # A child of the command may keep the pipes open: the command itself is what counts.
        if not out and not err and (not self._open or self._process.poll() is not None):
            self._finish(max(0.0, deadline - time.monotonic()))
        return out, err

    def stop(self) -> None:
        """End the command and what it started."""
        for number, seconds in ((signal.SIGTERM, KILL_AFTER_SECONDS), (signal.SIGKILL, KILL_AFTER_SECONDS)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._finish(0.0)
        for stream in self._open.values():
            stream.close()
        self._open.clear()

    def _finish(self, seconds: float) -> None:
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        self.close_input()
        if not self.ended:
            self.ended, self.exit_code = True, 128 - code if code < 0 else code
            self._on_end(self._process.pid)


class ContainerExecution:
    """A command inside a container, whose streams come as frames on one socket of the engine."""

    def __init__(self, stream: Any, inspect: Callable[[], dict[str, Any]]) -> None:
        """`stream` is what the SDK hands out; `inspect` tells the engine's view of the command."""
        self._stream = stream
        self._inspect = inspect
        self._raw = bytearray()
        self.ended = False
        self.exit_code: int | None = None

    def write(self, data: bytes) -> int:
        """Give the command input; return how much of it was taken."""
        if not data:
            return 0
        _, ready, _ = select.select([], [self._stream.fileno()], [], 0)
        try:
            return os.write(self._stream.fileno(), data[: select.PIPE_BUF]) if ready else 0
        except OSError:
            return len(data)

    def close_input(self) -> None:
        """Let the command see the end of its input."""
        wire = getattr(self._stream, "_sock", self._stream)
        with contextlib.suppress(OSError):
            wire.shutdown(socket.SHUT_WR)

    def read(self, seconds: float) -> tuple[bytes, bytes]:
        """Return what came on stdout and stderr, waiting up to `seconds` for something."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._stream.fileno(), select.POLLIN)
        while not self.ended:
            if found := self._frames():
                return found
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                break
            data = os.read(self._stream.fileno(), CHUNK)
            if not data:
                self._finish()
            self._raw += data
        return b"", b""

    def stop(self) -> None:
        """End the command and what it started. The engine cannot; this process does, where it may."""
        with contextlib.suppress(psutil.Error, OSError):
            pid = int(self._inspect().get("Pid") or 0)
            first = psutil.Process(pid) if pid else None
            doomed = [*first.children(recursive=True), first] if first else []
            for process in doomed:
                with contextlib.suppress(psutil.Error):
                    process.terminate()
            _, left = psutil.wait_procs(doomed, KILL_AFTER_SECONDS)
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self._finish()

    def _frames(self) -> tuple[bytes, bytes] | None:
        """Return the whole frames that have come, or None."""
        out, err = bytearray(), bytearray()
        while len(self._raw) >= _HEADER:
            kind, length = struct.unpack(">B3xL", self._raw[:_HEADER])
            if len(self._raw) < _HEADER + length:
                break
            (err if kind == _STDERR else out).extend(self._raw[_HEADER : _HEADER + length])
            del self._raw[: _HEADER + length]
        return (bytes(out), bytes(err)) if out or err else None

    def _finish(self) -> None:
        if self.ended:
            return
        self.ended = True
        deadline = time.monotonic() + KILL_AFTER_SECONDS
        while True:
            found = self._inspect()
            if not found.get("Running") or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        self.exit_code = found.get("ExitCode")
        # The SDK hands out the bare socket and hangs the response on it; closing that one closes both.
        getattr(self._stream, "_response", self._stream).close()

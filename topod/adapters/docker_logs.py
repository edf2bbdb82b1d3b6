"""Copies what containers print from the engine to topod's log files, without losing or doubling a byte.

The engine delivers its log as frames, each with the time at which it was taken in. Beside every log file
lies its position: how many bytes are good, and the latest times with the number of frames of each. After a
restart (of topod or of the engine) the file is cut to the good bytes, the engine is asked for everything
since the oldest of those times, and the frames that the position counts are skipped. Times alone would not
do: the parts of a long line share one, and two streams can swap places.
"""

import logging
import os
import struct
import threading
from collections import Counter
from datetime import datetime
from pathlib import Path

import docker
import docker.errors

from topod.adapters.docker_engine import Engine, engine_errors
from topod.adapters.process_shim import trim
from topod.errors import RuntimeUnavailableError
from topod.ports import LOG_BYTES

log = logging.getLogger(__name__)

REMEMBERED_TIMES = 16
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)


class LogCopy:
    """One log file and its position. Used by one thread at a time."""

    def __init__(self, path: Path, most: int = LOG_BYTES) -> None:
        """Open the log, of which about the last `most` bytes are kept."""
        self._most = most
        self._trim_at = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._position = position_path(path)
        self._recent: dict[str, int] = {}
        self._skip: Counter[str] = Counter()
        self._floor = ""
        self._offset = 0
        self._read_position()
        self._log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._positions = os.open(self._position, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if os.fstat(self._log).st_size < self._offset:  # someone emptied or removed the log
            self._offset, self._recent = 0, {}

    def begin(self) -> int:
        """Begin a pass over the engine's log; return from which epoch second it must be read."""
        # On a full disk the last pass may have ended within a frame.
        os.ftruncate(self._log, self._offset)
        os.lseek(self._log, self._offset, os.SEEK_SET)
        self._skip = Counter(self._recent)
        self._floor = min(self._recent, default="")
        return int(datetime.fromisoformat(self._floor).timestamp()) if self._floor else 1

    def add(self, frame: bytes) -> None:
        """Append one frame, `TIME TEXT`, unless an earlier pass did."""
        stamp, _, text = frame.partition(b" ")
        time = stamp.decode("ascii", "replace")
        if time < self._floor:
            return
        if self._skip[time] > 0:
            self._skip[time] -= 1
            return
        view = memoryview(text)
        while view:
            view = view[os.write(self._log, view) :]
        self._offset += len(text)
        if self._offset >= self._trim_at:
            trim(self._log, self._most)
            self._trim_at = self._offset + self._most // 16
        self._recent[time] = self._recent.get(time, 0) + 1
        if len(self._recent) > REMEMBERED_TIMES:
            del self._recent[min(self._recent)]
        lines = [str(self._offset), *(f"{time} {count}" for time, count in self._recent.items()), "end\n"]
        record = "\n".join(lines).encode()
        os.pwrite(self._positions, record, 0)
        os.ftruncate(self._positions, len(record))

    def close(self) -> None:
        """Close both files."""
        os.close(self._log)
        os.close(self._positions)

    def _read_position(self) -> None:
        """Take over the position of an earlier copy; a damaged one means: from the beginning."""
        try:
            first, *lines, last = self._position.read_text().split("\n")[:-1]
            times = {time: int(count) for time, _, count in (line.partition(" ") for line in lines)}
            for time in times:
                datetime.fromisoformat(time)
            if last == "end":
                self._offset, self._recent = int(first), times
        except (OSError, ValueError):
            self._offset, self._recent = 0, {}


def position_path(path: Path) -> Path:
    """Return where the position of a log file is kept."""
    return path.with_name(f".{path.name}.position")


class _Follower:
    """The thread that copies one container's output until the container has ended and all is copied."""

    def __init__(self, engine: Engine, container: str, path: Path, most: int, *, running: bool) -> None:
        self._engine = engine
        self._container = container
        self._path = path
        self._most = most
        self._running = running
        self._stop = threading.Event()
        self._stream: docker.types.CancellableStream[bytes] | None = None
        self.complete = False
        self.thread = threading.Thread(target=self._run, name=f"log {container}", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._close_stream()

    def _run(self) -> None:
        copy = LogCopy(self._path, self._most)
        drained, failures = False, 0
        try:
            while not self._stop.is_set():
                try:
                    # To follow one that has just ended is to read what there is.
                    ended = not self._running and self._ended()
                    self._running = False
                    # A stream that broke looks like one that ended, so the end counts only when the engine
                    # still answers after it.
                    if ended and drained:
                        self.complete = True
                        return
                    self._copy(copy, follow=not ended)
                    drained, failures = ended, 0
                except RuntimeUnavailableError as error:
                    drained = False
                    level = logging.WARNING if failures == len(RETRY_SECONDS) else logging.DEBUG
                    log.log(level, "the log of %s stands still: %s", self._container, error)
                    self._stop.wait(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                    failures += 1
        finally:
            copy.close()

    def _ended(self) -> bool:
        with engine_errors("following a log"):
            try:
                state = self._engine.quick.inspect_container(self._container)["State"]
            except docker.errors.NotFound:
                return True
        return not (state["Running"] or state.get("Restarting"))

    def _copy(self, copy: LogCopy, *, follow: bool) -> None:
        with engine_errors("reading a log"):
            since = copy.begin()
            try:
                stream = self._engine.quick.logs(
                    self._container, stream=True, follow=follow, timestamps=True, since=since
                )
            except docker.errors.NotFound:
                return
            self._stream = stream
            try:
                if self._stop.is_set():  # stop() came before there was a stream to close
                    return
                for frame in stream:
                    if self._stop.is_set():
                        return
                    copy.add(frame)
            except struct.error as error:  # the SDK met half a frame header
                raise ConnectionError("the log stream broke off") from error
            finally:
                self._close_stream()

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except (OSError, AttributeError, docker.errors.DockerException):
                log.debug("log stream of %s was closed already", self._container)


class LogKeeper:
    """All followers of one runtime."""

    def __init__(self, engine: Engine, most: int = LOG_BYTES) -> None:
        """`most`: how many bytes of one log are kept, about."""
        self._engine = engine
        self._most = most
        self._followers: dict[str, _Follower] = {}
        self._lock = threading.Lock()
        self._closed = False

    def follow(self, container: str, path: Path, *, running: bool = False) -> None:
        """See to it that the container's output is copied; no-op when it is.

        `running`: it ran a moment ago, and that need not be looked at.
        """
        with self._lock:
            known = self._followers.get(container)
            if self._closed or (known and (known.complete or known.thread.is_alive())):
                return
            self._followers[container] = _Follower(self._engine, container, path, self._most, running=running)

    def again(self, container: str) -> None:
        """Be ready to follow a container that ended and is restored: its log goes on."""
        with self._lock:
            follower = self._followers.get(container)
            if follower is not None and (follower.complete or not follower.thread.is_alive()):
                del self._followers[container]
        if follower is not None:
            follower.thread.join(2)

    def finish(self, container: str, path: Path, timeout_seconds: float) -> bool:
        """Wait until everything an ended container printed is copied; return whether it is."""
        self.follow(container, path)
        with self._lock:
            follower = self._followers.get(container)
        if follower is None:
            return False
        follower.thread.join(timeout_seconds)
        return follower.complete

    def forget(self, container: str, path: Path) -> None:
        """Drop what is kept of a container that is gone; its log file stays."""
        with self._lock:
            follower = self._followers.pop(container, None)
        if follower is not None:
            follower.stop()
            follower.thread.join(2)
        position_path(path).unlink(missing_ok=True)

    def close(self) -> None:
        """Stop all copying."""
        with self._lock:
            self._closed = True
            followers, self._followers = list(self._followers.values()), {}
        for follower in followers:
            follower.stop()
        for follower in followers:
            follower.thread.join(2)

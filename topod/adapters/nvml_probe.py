"""The daemon's view of NVML: every call has a bound, even when the driver hangs.

NVML runs in a worker process (`nvml_worker`). A worker that does not answer in time is killed and left
behind, never waited for: in uninterruptible sleep it cannot die. The next call starts another one, later
each time it fails again.
"""

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from topod.adapters.host_processes import busy_for, identify
from topod.adapters.nvml_worker import Call, Reply, Request
from topod.discovery.gpufacts import (
    IDLE_MEMORY_BYTES,
    GpuFacts,
    GpuLive,
    GpuProcess,
    LiveFacts,
    XidEvent,
)
from topod.errors import ProbeError

MAX_ABANDONED = 4
MAX_DELAY_SECONDS = 60.0
RENEW_SECONDS = 60.0
"""While a GPU is missing the worker is replaced so often."""
CLOSE_SECONDS = 1.0
GONE = "NVML does not list it any more"

_STUCK: Final[list[subprocess.Popen[bytes]]] = []
"""Workers that outlived their probe: kept, since Python complains about a process object that goes first."""


class NvmlProbe:
    """Reads NVML through a worker process. Threads may share it: one call at a time goes through.

    Every method raises `ProbeError` in one sentence when NVML is absent, fails, or does not answer within
    `timeout` seconds. The worker keeps NVML open between calls; `close` ends it (before a GPU reset or a
    driver update, say).
    """

    def __init__(
        self, *, environment: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`environment` replaces the worker's environment; `clock` counts seconds for timeouts and delays."""
        self._environment = None if environment is None else dict(environment)
        self._clock: Final = clock
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None
        self._abandoned: list[subprocess.Popen[bytes]] = []
        self._failures = 0
        self._not_before = 0.0
        self._renew_at = 0.0
        self._last_failure = ""
        self._next_id = 0
        self._seen: dict[str, GpuLive] = {}
        self._quietest: dict[str, int] = {}

    def snapshot(self, timeout: float = 10.0) -> GpuFacts:
        """Return the lasting facts of all GPUs."""
        facts = self._call("facts", timeout).facts
        if facts is None:
            raise ProbeError("NVML worker answered without facts")
        for gpu in facts.gpus:
            if gpu.uuid is not None:
                self._seen.setdefault(gpu.uuid, GpuLive(uuid=gpu.uuid))
        return facts

    def live(self, timeout: float = 5.0) -> LiveFacts:
        """Return memory, processes and health of all GPUs; those seen before and gone now carry a problem."""
        live = self._call("live", timeout).live
        if live is None:
            raise ProbeError("NVML worker answered without a live reading")
        present = {gpu.uuid: gpu for gpu in live.gpus}
        lost = tuple(
            GpuLive(uuid=uuid, memory_bytes=gpu.memory_bytes, problem=GONE)
            for uuid, gpu in self._seen.items()
            if uuid not in present
        )
        self._seen |= present
        unwell = lost or any(gpu.problem is not None for gpu in live.gpus)
        if unwell and self._clock() >= self._renew_at:
            # A process that saw a GPU go does not see it come back.
            self._renew_at = self._clock() + RENEW_SECONDS
            self.renew()
        quietest = dict(self._quietest)  # as it was before: this very reading must not set its own bound
        for gpu in live.gpus:
            compute = [process for process in gpu.processes or () if process.kind == "compute"]
            if gpu.memory_used_bytes is None or gpu.processes is None or compute:
                continue
            desktop = sum(process.memory_bytes or 0 for process in gpu.processes)
            # What a dead process left behind must not become the measure of an idle GPU.
            if gpu.memory_used_bytes <= IDLE_MEMORY_BYTES + desktop:
                least = self._quietest.get(gpu.uuid, gpu.memory_used_bytes)
                self._quietest[gpu.uuid] = min(least, gpu.memory_used_bytes)
        found = tuple(replace(gpu, idle_bytes=quietest.get(gpu.uuid)) for gpu in live.gpus)
        return replace(live, gpus=found + lost)

    def processes(self, timeout: float = 5.0) -> dict[str, tuple[GpuProcess, ...] | None]:
        """Return the processes on each GPU by UUID; None for a GPU that does not tell."""
        return {gpu.uuid: gpu.processes for gpu in self.live(timeout).gpus}

    def busy(
        self,
        uuids: Collection[str],
        timeout: float = 5.0,
        *,
        ignores: Callable[[str], bool] = lambda _: False,
    ) -> dict[str, str]:
        """Return, for each of these GPUs that is not free yet, why; empty when all are free.

        `ignores` says of which name a process does not count.
        """
        live = self.live(timeout)
        return busy_for(live, uuids, identify, ignores)

    def events(self, timeout: float = 5.0, *, wait_seconds: float = 0.0) -> tuple[XidEvent, ...]:
        """Return the Xid events since the last call, after waiting up to `wait_seconds` for a first one.

        Events are collected from the worker's first call on; those that fall between two workers are lost.
        While this call waits no other goes through: to wait long, use a probe of its own.
        """
        events = self._call("events", timeout + wait_seconds, wait_seconds).events
        return events if events is not None else ()

    def renew(self) -> None:
        """Let the next call be the first of a fresh worker."""
        with self._lock:
            self._drop_worker()

    def close(self) -> None:
        """End the worker, after the call that is under way. The next call would start another."""
        with self._lock:
            self._drop_worker()
            for worker in self._abandoned:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.wait(timeout=CLOSE_SECONDS)
            self._reap()
            _STUCK.extend(self._abandoned)
            self._abandoned = []

    def _call(self, call: Call, timeout: float, wait_seconds: float = 0.0) -> Reply:
        deadline = self._clock() + timeout
        if not self._lock.acquire(timeout=timeout):
            raise ProbeError(f"NVML is busy with another call for {timeout:g} s")
        try:
            worker = self._started()
            self._next_id += 1
            request = Request(id=self._next_id, call=call, wait_seconds=wait_seconds)
            reply = self._exchange(worker, request, deadline, timeout)
            if reply.ended:
                self._drop_worker()
        finally:
            self._lock.release()
        if reply.error is not None:
            raise ProbeError(reply.error)
        return reply

    def _started(self) -> subprocess.Popen[bytes]:
        self._reap()
        if self._worker is not None and self._worker.poll() is None:
            return self._worker
        self._drop_worker()
        wait = self._not_before - self._clock()
        if wait > 0:
            raise ProbeError(f"{self._last_failure}; it is tried again in {wait:.0f} s")
        if len(self._abandoned) >= MAX_ABANDONED:
            raise ProbeError(
                f"{len(self._abandoned)} NVML workers hang in the driver and cannot be ended",
                hint="look for NVRM and Xid lines in `dmesg`; a GPU reset or a reboot is needed",
            )
        command = [sys.executable, "-P", "-m", "topod.adapters.nvml_worker"]
        try:
            self._worker = subprocess.Popen(  # noqa: S603 - our own module, no shell
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env=self._environment,
                start_new_session=True,  # a Ctrl-C at the daemon's terminal is the daemon's to handle
            )
        except OSError as error:
            raise self._failed(f"the NVML worker cannot be started: {error.strerror}") from None
        return self._worker

    def _exchange(
        self, worker: subprocess.Popen[bytes], request: Request, deadline: float, timeout: float
    ) -> Reply:
        assert worker.stdin is not None
        assert worker.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then it has ended, and reading says so
            worker.stdin.write(msgspec.json.encode(request) + b"\n")
        answer = select.poll()
        answer.register(worker.stdout, select.POLLIN)
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - self._clock()
            if left <= 0 or not answer.poll(left * 1000):
                self._drop_worker()
                raise self._failed(f"NVML did not answer within {timeout:g} s")
            chunk = os.read(worker.stdout.fileno(), 1 << 16)
            if not chunk:
                self._drop_worker()
                raise self._failed("the NVML worker ended in the middle of a call")
            line += chunk
        try:
            reply = msgspec.json.decode(line, type=Reply)
        except msgspec.MsgspecError as error:
            self._drop_worker()
            raise self._failed(f"the NVML worker's answer cannot be read: {error}") from None
        self._failures = 0
        return reply

    def _failed(self, message: str) -> ProbeError:
        """Count the failure: the first retry may come at once, the next ones after 1, 3, 7... seconds."""
        self._failures += 1
        delay = min(2.0 ** (self._failures - 1) - 1, MAX_DELAY_SECONDS)
        self._not_before, self._last_failure = self._clock() + delay, message
        return ProbeError(message)

    def _drop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                pipe.close()
        worker.kill()
        self._abandoned.append(worker)

    def _reap(self) -> None:
        self._abandoned = [worker for worker in self._abandoned if worker.poll() is None]

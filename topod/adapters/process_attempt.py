"""What the files of one attempt say about its processes; see `process_shim` for who writes them."""

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topod.adapters.process_shim import all_processes, boot_id, descendants, read_process
from topod.model.job import JobId
from topod.ports import ContainerStatus, Observed

CLAIM_SECONDS = 2.0
"""How long a shim that lives may take from its claim to the start of the job."""
MARK = "TOPOD_ATTEMPT_DIRECTORY"
"""The variable that marks every process of an attempt: the absolute path of its directory."""
_POLL_SECONDS = 0.005
_HANDLE = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Attempt:
    """The directory of one attempt, `ROOT/JOB.ATTEMPT`."""

    directory: Path

    @property
    def handle(self) -> str:
        """The directory's name: `JOB.ATTEMPT`."""
        return self.directory.name

    @property
    def job(self) -> JobId:
        """The job's number."""
        return JobId(int(self.handle.partition(".")[0]))

    @property
    def number(self) -> int:
        """Counts the starts of the job."""
        return int(self.handle.partition(".")[2])

    def read(self, name: str) -> dict[str, Any] | None:
        """Return `NAME.json`, or None when it is not there (yet)."""
        try:
            document: dict[str, Any] = json.loads((self.directory / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        return document

    def living(self, name: str) -> int | None:
        """Return the PID that `claim` or `started` names if that very process still runs."""
        identity = self.read(name)
        if identity is None or identity["boot"] != boot_id():
            return None
        process = read_process(identity["pid"])
        if process is None or process.start != identity["start"] or not process.alive:
            return None
        return process.pid

    def wait_started(self) -> dict[str, Any] | None:
        """Return `started`, waiting for it as long as the shim that claimed the attempt is on its way."""
        deadline = time.monotonic() + CLAIM_SECONDS
        while (started := self.read("started")) is None and time.monotonic() < deadline:
            if self.living("claim") is None:
                return self.read("started")
            time.sleep(_POLL_SECONDS)
        return started

    def observe(self) -> Observed | None:
        """Return what is known of the attempt; None for a directory that is not complete."""
        if self.read("spec") is None:
            return None
        if self.read("claim") is None:
            return self._observed(ContainerStatus.CREATED)
        started = self.wait_started()
        started_at = started["started_at"] if started else None
        if self.living("started") is not None or self.living("claim") is not None:
            # Also between the end of the job and the shim's last word: processes may be left.
            return self._observed(ContainerStatus.RUNNING, started_at=started_at)
        ended = self.read("exit") or {}
        return self._observed(
            ContainerStatus.EXITED,
            started_at=started_at,
            exit_code=ended.get("exit_code"),
            ended_at=ended.get("ended_at"),
        )

    def pids(self) -> tuple[int, ...]:
        """Return the PIDs of all processes of the job.

        They descend from the shim. Where that is gone they are found by the variable that every process of
        the job inherits, and by the job's session while its leader lives: later the number of the session
        could be another's.
        """
        shim = self.living("claim")
        if shim is not None:
            return tuple(sorted(descendants(shim)))
        started = self.read("started")
        if started is None or started["boot"] != boot_id() or (self.read("exit") or {}).get("alone"):
            return ()
        session = self.living("started")
        mark = f"{MARK}={self.directory}".encode()
        return tuple(
            sorted(
                process.pid
                for process in all_processes()
                if process.alive
                and process.start >= started["start"]
                and (process.session == session or mark in _environment(process.pid))
            )
        )

    def _observed(
        self,
        status: ContainerStatus,
        *,
        started_at: float | None = None,
        exit_code: int | None = None,
        ended_at: float | None = None,
    ) -> Observed:
        return Observed(
            job=self.job,
            attempt=self.number,
            handle=self.handle,
            status=status,
            exit_code=exit_code,
            started_at=started_at,
            ended_at=ended_at,
        )


def attempts(root: Path) -> Iterator[Attempt]:
    """Yield the attempts under a runtime's root, in no order."""
    try:
        entries = list(os.scandir(root))
    except FileNotFoundError:
        return
    for entry in entries:
        if _HANDLE.fullmatch(entry.name):
            yield Attempt(Path(entry.path))


def _environment(pid: int) -> set[bytes]:
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()

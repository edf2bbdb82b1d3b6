"""Reading pieces of what a job printed."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from topod.errors import StoreError
from topod.lifecycle.states import ENDED, HostState, Job, JobState, Stage
from topod.model.job import JobId
from topod.ports import ContainerRuntime

MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes of a log that end at `next_offset`; before them `skipped` bytes are no longer kept."""

    data: bytes = b""
    next_offset: int = 0
    skipped: int = 0
    exists: bool = True


def begun_in(state: HostState, *, job: JobId, attempt: int) -> bool:
    """Return what `has_begun` does of the job of that id."""
    return has_begun(state.jobs.get(job), attempt)


def has_begun(job: Job | None, attempt: int) -> bool:
    """Say whether this attempt of a job may have printed something; True also where there is no such job."""
    if job is None or attempt < job.attempt or job.state in ENDED:
        return True
    return attempt > 0 and (
        job.state in (JobState.RUNNING, JobState.STOPPING) or job.stage is Stage.LAUNCHING
    )


def launched_in(state: HostState, *, job: JobId, attempt: int) -> bool:
    """Return whether the job of that id is not, or no longer, what `is_launching` says."""
    found = state.jobs.get(job)
    return found is None or not is_launching(found, attempt)


def is_launching(job: Job, attempt: int) -> bool:
    """Say whether this attempt of a job was told to start, and the runtime has not answered yet."""
    return job.attempt == attempt and job.stage is Stage.LAUNCHING


def read_piece(path: Path, offset: int, limit: int) -> Piece:
    """Return up to `limit` bytes of a log from `offset` on (negative: from the end).

    A file that is not there yet is empty. The beginning of a long log is a hole, which is skipped.
    Raises `StoreError` when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            asked = min(max(0, size + offset) if offset < 0 else offset, size)
            while True:
                begin = _after_hole(file.fileno(), asked, size)
                file.seek(begin)
                data = file.read(max(0, min(limit, MAX_BYTES)))
                # What was cut off while it was read came as zeros.
                if _after_hole(file.fileno(), begin, size) == begin:
                    break
    except FileNotFoundError:
        return Piece(next_offset=max(0, offset), exists=False)
    except OSError as error:
        raise StoreError(f"cannot read the log {path}: {error.strerror}") from error
    skipped = 0 if offset < 0 else begin - asked
    return Piece(data=data, next_offset=begin + len(data), skipped=skipped)


def _after_hole(descriptor: int, offset: int, size: int) -> int:
    try:
        return min(size, os.lseek(descriptor, offset, os.SEEK_DATA))
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole, or the end
            return size
        if error.errno == errno.EINVAL:  # this file system knows no holes
            return offset
        raise


def latest_attempt(job: Job, runtime: ContainerRuntime) -> int:
    """Return the latest attempt that was started, else the latest."""
    started = job.state not in (JobState.STARTING, JobState.PENDING) or job.stage is Stage.LAUNCHING
    if started:
        return job.attempt
    for attempt in range(job.attempt, 0, -1):
        if runtime.log_path(job.id, attempt).exists():
            return attempt
    return job.attempt


def is_complete(job: Job, attempt: int) -> bool:
    """Say whether nothing more will come from an attempt."""
    if any(left.attempt == attempt for left in job.leftovers):
        return False
    if job.state in (JobState.STARTING, JobState.RUNNING, JobState.STOPPING):
        return attempt < job.attempt
    # A job that waits for its first start has a log that has not begun.
    return job.state in ENDED or attempt > 0

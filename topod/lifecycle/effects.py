"""What the daemon must do next, in order; each is idempotent and answered by an event.

Rule: the state that an effect follows from is durable before the effect is carried out, so after a crash
`outstanding` in `topod.lifecycle.recovery` gives the same effects again.
"""

from dataclasses import dataclass

from topod.model.container import Signal
from topod.model.job import Allocation, JobId, JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PullImage:
    """Make the image local. Answer: `ImageReady` or `ImageFailed`."""

    job: JobId
    spec: JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Make the container without starting it. Answer: `Created` or `CreateFailed`."""

    job: JobId
    attempt: int
    spec: JobSpec
    allocation: Allocation


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckDevices:
    """Wait until the GPUs are really free. Answer: `DevicesFree` or `DevicesBusy`."""

    job: JobId
    attempt: int
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Start the container. Answer: `Started` or `StartFailed`; later `Exited`."""

    job: JobId
    attempt: int
    handle: str
    checkpoint: str | None = None
    """Restore it from this checkpoint instead of starting its command."""
    again: bool = False
    """An earlier topod may have ordered it already, and the runtime may still be at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdraw:
    """Make sure that a container whose start may still be on its way never runs.

    Answer: `StartFailed`, and it is removed; or `Started`, when it runs all the same.
    """

    job: JobId
    attempt: int
    handle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHook:
    """Run the checkpoint hook inside the container. Answer: `HookDone`."""

    job: JobId
    attempt: int
    handle: str
    command: tuple[str, ...]
    timeout_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """Write the container to disk under `name`, which ends it. Answer: `Frozen`."""

    job: JobId
    attempt: int
    handle: str
    name: str
    timeout_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Send a signal to the container. Answer: `Delivered`; in time also `Exited`."""

    job: JobId
    attempt: int
    handle: str
    signal: Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Collect:
    """Complete the log and remove the container. Answer: `Collected`."""

    job: JobId
    attempt: int
    handle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveStray:
    """Stop and remove a container that no job of this host answers for. No answer."""

    handle: str


Effect = (
    PullImage | Create | CheckDevices | Launch | Withdraw | RunHook | Freeze | Deliver | Collect | RemoveStray
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One line of the host's story, kept for `topoctl events` and written to the log.

    `name` is a dotted noun and a past participle (`job.preempted`); `data` holds plain JSON values.
    """

    name: str
    job: JobId | None
    text: str
    data: tuple[tuple[str, object], ...] = ()

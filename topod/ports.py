"""What the daemon needs from the world, as protocols; the adapters and the tests' fakes implement them.

Rule: every call of a runtime may block, so the daemon calls it from a worker thread, and every call ends by
itself within its documented bound. Calls are idempotent: after a crash the daemon repeats the last one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from topod.model.container import ContainerStatus, Exit, Observed, Signal
from topod.model.job import Allocation, JobId, JobSpec

__all__ = [
    "LOG_BYTES",
    "Clock",
    "ContainerRuntime",
    "ContainerStatus",
    "Execution",
    "Exit",
    "GpuProbe",
    "ImageMissingError",
    "Observed",
    "Signal",
    "Wire",
]


LOG_BYTES: Final = 100 << 20
"""Of what one attempt prints, the last so many bytes are kept unless the site says otherwise."""


class ImageMissingError(Exception):
    """The image is not on this host, though it was when the job was queued."""


class Execution(Protocol):
    """A command that runs beside a job. Used by one thread at a time; `read` blocks as long as it is told."""

    ended: bool
    """Nothing more will come; `exit_code` is known (128+n after signal n, None where nobody saw it)."""
    exit_code: int | None

    def write(self, data: bytes) -> int:
        """Give the command input and return how much of it was taken; never blocks."""
        ...

    def close_input(self) -> None:
        """Let the command see the end of its input."""
        ...

    def read(self, seconds: float) -> tuple[bytes, bytes]:
        """Return what came on stdout and stderr, waiting up to `seconds` for something."""
        ...

    def stop(self) -> None:
        """End the command and what it started, within a few seconds."""
        ...


class ContainerRuntime(Protocol):
    """Runs the attempts of jobs. All times in seconds.

    Failures raise `RuntimeUnavailableError` (retry later) or `JobRejectedError` (this job can never
    start so).
    """

    name: str
    """`docker` or `process`."""
    engine_url: str
    """Where its engine is asked; empty: it has none."""

    def describe(self) -> str:
        """Return one line for people: engine, version, what is emulated."""
        ...

    def ensure_image(self, spec: JobSpec) -> None:
        """Make the image local, pulling it if needed. May take minutes; bounded by the pull timeout."""
        ...

    def image_seen(self, spec: JobSpec) -> bool:
        """Say whether the image was local not long ago; asks nobody."""
        ...

    def create(self, job: JobId, attempt: int, spec: JobSpec, allocation: Allocation) -> str:
        """Create the container without starting it and return its handle; the same one when repeated.

        Raises `ImageMissingError` when the image went away.
        """
        ...

    def start(self, handle: str, checkpoint: str | None = None) -> float:
        """Start the container and return when it started (epoch seconds); no-op when it runs or ran.

        With `checkpoint` it goes on from where `freeze` left it; where there is no such checkpoint, the
        moment returned is that of the frozen life. Raises `JobRejectedError` when it cannot.
        """
        ...

    def freeze(self, handle: str, name: str, timeout_seconds: float) -> float | None:
        """Write the running container to disk as checkpoint `name`, which ends it; no-op when that was done.

        Return when the life that ended had begun, as `Exit.started_at` tells it. Raises `JobRejectedError`,
        in one sentence, when this runtime, or this container, cannot be frozen, or not in that time.
        """
        ...

    def signal(self, handle: str, signal: Signal) -> None:
        """Send the signal to the job; no error when it is gone already."""
        ...

    def run_hook(
        self, handle: str, command: tuple[str, ...], timeout_seconds: float
    ) -> tuple[int | None, str]:
        """Run a command inside the container; return (exit code or None on time-out, last output)."""
        ...

    def execute(self, handle: str, command: tuple[str, ...], *, stdin: bool) -> Execution:
        """Start a command beside the job: in its container, with its environment, on its CPUs.

        It ends with the job at the latest. Raises `ConflictError` when the job does not run. A command that
        is not there or cannot be run ends with 127 or 126.
        """
        ...

    def observe(self) -> tuple[Observed, ...]:
        """Return every container that carries this topod's labels, in any status."""
        ...

    def watch(self, on_exit: Callable[[Exit], None]) -> None:
        """Call `on_exit` (from any thread, at least once) for each container that ends from now on."""
        ...

    def log_path(self, job: JobId, attempt: int) -> Path:
        """Return the file that holds what the attempt printed (stdout and stderr, in order).

        The runtime keeps it growing while the container runs (also after the daemon restarted) and
        complete before `remove` returns. It stays after `remove`. Of a long log the beginning is dropped and
        leaves a hole (lseek(2), SEEK_DATA), so that positions in it never change.
        """
        ...

    def remove(self, handle: str) -> None:
        """Remove the container, killing it if needed; no error when it is gone."""
        ...

    def pids(self, handle: str) -> tuple[int, ...]:
        """Return the host PIDs of the job's processes."""
        ...

    def close(self) -> None:
        """Stop watching; leaves every container running."""
        ...


class GpuProbe(Protocol):
    """Whether GPUs are really free."""

    def busy(self, uuids: tuple[str, ...]) -> dict[str, str]:
        """Return, for each GPU that is not free, why: `pid 4711 (python) holds 22.1 GiB`.

        Raises `ProbeError` when the driver does not answer in time.
        """
        ...


class Wire(Protocol):
    """A host's connection to its coordinator; a message comes whole, or is lost. For the event loop only."""

    connected: bool
    trouble: str
    """Why there is no connection, in words; empty: there is one, or nothing is known yet."""

    async def send(self, data: bytes) -> None:
        """Send a message; never waits. Without a connection it may be lost."""
        ...

    async def recv(self) -> bytes:
        """Return the next message of a coordinator, through all losses of the connection."""
        ...

    def move_on(self) -> None:
        """Turn to another coordinator, or connect anew where there is one only."""
        ...

    def close(self) -> None:
        """Hang up; whoever waits in `recv` is to be cancelled before."""
        ...


class Clock(Protocol):
    """Wall-clock time."""

    def now(self) -> float:
        """Return epoch seconds."""
        ...

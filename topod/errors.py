"""The errors topod can end with, each with a stable code and an exit status.

Rule: "no room" is never an error; it is a `Refusal` value. Errors are for broken input and a broken world.
Every message is one sentence that says what was wrong and where; `hint` says what to do.
"""


class TopodError(Exception):
    """Base of every error that topod raises on purpose; never raised itself."""

    code: str = "error"
    exit_status: int = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(TopodError):
    """The command line or a job file asks for something that cannot be meant."""

    code = "usage"
    exit_status = 2


class DataError(TopodError):
    """Input text is damaged: a matrix, a host document, a job file. Exit status 65 (EX_DATAERR)."""

    code = "bad-data"
    exit_status = 65

    def __init__(
        self,
        message: str,
        *,
        source: str | None = None,
        line: int | None = None,
        column: int | None = None,
        hint: str | None = None,
    ) -> None:
        """Say what was wrong in `source` at `line` and `column`, both counted from 1."""
        where = ":".join(str(part) for part in (source, line, column) if part is not None)
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.line = line
        self.column = column


class NotFoundError(TopodError):
    """The job, GPU, host or file that was named does not exist."""

    code = "not-found"
    exit_status = 4


class ConflictError(TopodError):
    """The request cannot be carried out in the present state (for example: the job has ended)."""

    code = "conflict"
    exit_status = 5


class NotAllowedError(TopodError):
    """The user lacks the role for this, or may not open the socket. Exit status 77 (EX_NOPERM)."""

    code = "not-allowed"
    exit_status = 77


class DaemonUnavailableError(TopodError):
    """No topod answered on its socket. Exit status 69 (EX_UNAVAILABLE)."""

    code = "daemon-unavailable"
    exit_status = 69


class NotLeaderError(TopodError):
    """The coordinator does not lead the fleet just now; another one may, and can be asked."""

    code = "not-leader"
    exit_status = 69


class MemoryAwayError(NotLeaderError):
    """No coordinator can lead: what they share does not answer this one. Another one may still reach it."""

    code = "memory-away"


class RuntimeUnavailableError(TopodError):
    """The container engine did not answer, or not in time."""

    code = "runtime-unavailable"
    exit_status = 69


class PullFailedError(RuntimeUnavailableError):
    """An image could not be had just now: a registry's or the network's trouble, not the engine's."""

    code = "pull-failed"


class ProbeError(TopodError):
    """NVML, nvidia-smi or sysfs could not be read, or not in time."""

    code = "probe-failed"
    exit_status = 69


class StoreError(TopodError):
    """The state database cannot be read or written."""

    code = "store-failed"
    exit_status = 74


class NewerStateError(StoreError):
    """A newer topod wrote the state; this one leaves it as it is."""

    code = "newer-state"


class LeadLostError(StoreError):
    """A coordinator lost the lead before it knew whether what it was asked for is durable."""

    code = "lead-lost"


class JobRejectedError(TopodError):
    """The runtime can never start this job as it was specified (unknown image, bad mount, bad user)."""

    code = "job-rejected"
    exit_status = 1


class InternalError(TopodError):
    """The daemon has a defect; its log has the details under the number given."""

    code = "internal"

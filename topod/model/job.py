"""What a user asks for (`JobSpec`) and what a host gives (`Allocation`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.request import ResourceRequest

JobId = NewType("JobId", int)
"""Counts up from 1 on each host; never used twice."""

GIB = 1 << 30
DEFAULT_SHM_BYTES = 8 * GIB
"""Of /dev/shm in a container; the engine's 64 MB makes NCCL fail."""


class Signal(StrEnum):
    """What a job can be sent: TERM and KILL end it, the others ask it to save its work."""

    TERM = "SIGTERM"
    KILL = "SIGKILL"
    INT = "SIGINT"
    HUP = "SIGHUP"
    USR1 = "SIGUSR1"
    USR2 = "SIGUSR2"


class OnPreempt(StrEnum):
    """What happens to a victim."""

    REQUEUE = "requeue"
    """Stopped, and back into the queue."""
    CANCEL = "cancel"
    """Stopped for good."""
    CHECKPOINT = "checkpoint"
    """Frozen on disk by the engine and restored later; where that fails, as `requeue`."""


class OnHostLost(StrEnum):
    """What becomes of a job whose host is cut off from the coordinator for longer than its lease."""

    REQUEUE = "requeue"
    """Its host stops it, and the coordinator places it anew once that is certain."""
    KEEP = "keep"
    """It goes on, and nobody starts it elsewhere until its host is back or declared dead."""


class AfterCondition(StrEnum):
    """How a job that another one waits for must have ended."""

    OK = "ok"
    """It succeeded."""
    ANY = "any"
    FAILED = "failed"
    """It ended in any other way than by success."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """A job that must end before this one may start."""

    job: JobId
    condition: AfterCondition = AfterCondition.OK
    index: int | None = None
    """Only the member with this index of the array that `job` is the first of; None: all its members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A file of the host that the job reads at `/run/secrets/<name>`; its content is never stored."""

    name: str
    source: str
    """Absolute path on the host."""


class RestartPolicy(StrEnum):
    """Whether a job that failed by itself runs again."""

    NEVER = "never"
    ON_FAILURE = "on-failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory or file of the host that the container sees at `target` (both absolute paths)."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device file of the host, or a folder of them, for the container; GPUs are asked for by number."""

    source: str
    target: str
    permissions: str = "rwm"
    """Of `r`, `w` and `m` (mknod)."""


class Network(StrEnum):
    """What network a container is in."""

    BRIDGE = "bridge"
    NONE = "none"
    HOST = "host"
    """The host's own: RDMA and NCCL between hosts need it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointHook:
    """What lets a job save its work before it is preempted, for at most `timeout_seconds`.

    Either a command run inside the job, or a signal, upon which the job saves and ends by itself.
    """

    command: tuple[str, ...] = ()
    signal: Signal | None = None
    timeout_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One job as submitted. Sizes in bytes, times in seconds; checked by `topod.protocol.jobfile`."""

    name: str
    command: tuple[str, ...]
    image: str | None = None
    """None only where the `process` runtime runs the command itself."""
    user: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    workdir: str | None = None
    container_user: str | None = None
    """`uid[:gid]` or a name inside the image."""
    shm_bytes: int = DEFAULT_SHM_BYTES
    """Size of /dev/shm."""
    ulimits: Mapping[str, int] = field(default_factory=dict)
    """Name without RLIMIT_ (`memlock`) to limit, -1 = unlimited; added to topod's defaults."""
    cap_add: tuple[str, ...] = ()
    """Capabilities without CAP_, such as IPC_LOCK."""
    devices: tuple[Device, ...] = ()
    network: Network | None = None
    """None: the engine's default."""
    labels: Mapping[str, str] = field(default_factory=dict)
    request: ResourceRequest = field(default_factory=ResourceRequest)
    memory_bytes: int | None = None
    preemptible: bool = True
    grace_seconds: float = 30.0
    min_runtime_seconds: float = 0.0
    on_preempt: OnPreempt = OnPreempt.REQUEUE
    on_host_lost: OnHostLost = OnHostLost.REQUEUE
    """For jobs of a fleet."""
    max_runtime_seconds: float | None = None
    restart: RestartPolicy = RestartPolicy.NEVER
    max_restarts: int = 3
    checkpoint: CheckpointHook | None = None
    wait_before_preempt_seconds: float = 0.0
    """For so long it waits for free GPUs before anybody is stopped for it."""
    after: tuple[Dependency, ...] = ()
    secrets: tuple[Secret, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What one attempt of a job holds on the host."""

    gpus: tuple[str, ...] = ()
    """UUIDs in index order."""
    gpu_indices: tuple[int, ...] = ()
    cpus: CpuSet = NO_CPUS
    """Pinned CPUs; empty = the shared pool."""
    memory_nodes: tuple[int, ...] = ()
    """NUMA nodes that memory is bound to; empty = no binding."""

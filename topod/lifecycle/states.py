"""The states of a job and of the host, as frozen values.

A job goes `pending -> starting -> running -> stopping -> (preempted -> pending) | succeeded | failed |
cancelled | lost | returned`; `TRANSITIONS` in `topod.lifecycle.transitions` is the whole table.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from itertools import repeat
from operator import attrgetter
from typing import Final

from topod.model.arrays import ArrayPlace
from topod.model.arrays import ident as named
from topod.model.assignment import FleetTag, Place
from topod.model.job import Allocation, Dependency, JobId, JobSpec


class JobState(StrEnum):
    """Where a job is in its life."""

    PENDING = "pending"
    """Queued; holds nothing."""
    STARTING = "starting"
    """Has GPUs and CPUs reserved; its container is being made, or it waits for victims to leave."""
    RUNNING = "running"
    STOPPING = "stopping"
    """Told to stop; still on its GPUs."""
    PREEMPTED = "preempted"
    """Stopped for another job; goes back to pending when that one runs, or gave up."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """Its container vanished and nobody saw how it ended."""
    RETURNED = "returned"
    """A job of the fleet, given back to the coordinator, which places it anew."""


ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.LOST, JobState.RETURNED})
HOLDING = frozenset({JobState.STARTING, JobState.RUNNING, JobState.STOPPING})
"""States in which a job holds its allocation."""


class Stage(StrEnum):
    """What a starting job waits for, in this order."""

    CREATING = "creating"
    """Its container, made before anyone is stopped."""
    CLEARING = "clearing"
    """The jobs that still hold its GPUs or CPUs."""
    CHECKING = "checking"
    """Its GPUs to be really free: no process on them, memory returned."""
    LAUNCHING = "launching"
    """The runtime to start it."""


class StopCause(StrEnum):
    """Why a job was told to stop."""

    PREEMPT = "preempt"
    CANCEL = "cancel"
    REQUEUE = "requeue"
    """Somebody wants it stopped and run again."""
    TIME_LIMIT = "time-limit"
    UNHEALTHY = "unhealthy"
    """Its GPU is unhealthy, and the site wants it to run elsewhere."""
    MOVE = "move"
    """To go on elsewhere on this host: see `Job.pinned`."""
    REVOKED = "revoked"
    """The coordinator takes it back, to place it anew."""
    LEASE = "lease"
    """The coordinator was not heard for longer than the lease; the job may be placed elsewhere."""


TAKEN_BACK = frozenset({StopCause.REVOKED, StopCause.LEASE})
"""Stopped so, a job of the fleet is returned however it ends."""


class StopPhase(StrEnum):
    """How far stopping has come."""

    HOOK = "hook"
    """Its checkpoint hook runs."""
    FREEZE = "freeze"
    """The engine writes it to disk."""
    TERM = "term"
    """SIGTERM was sent; the grace time runs."""
    KILL = "kill"
    """SIGKILL was sent."""
    STUCK = "stuck"
    """It survived SIGKILL; its GPUs are quarantined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The stopping of one job. `deadline` (epoch seconds) ends the phase.

    None until the runtime has taken the signal: an engine that hangs costs a job nothing of its grace time.
    """

    cause: StopCause
    by: JobId | None
    """The preemptor, for `preempt`."""
    reason: str
    since: float
    phase: StopPhase
    deadline: float | None
    gone: bool = False
    """Its container ended while it was being frozen; the answer to that says what it means."""
    exit_code: int | None = None
    """How it ended, when `gone`."""
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """Why a start is taken back that the runtime may still carry out; see `StartFailed`."""

    error: str
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """The container of an attempt that ended; it goes once its log is complete."""

    attempt: int
    handle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """That a job was assigned by the coordinator; see `topod.lifecycle.assignments`."""

    tag: FleetTag
    place: Place
    """What it may take: no other victims, and no worse GPUs. Nobody, once it has run."""
    taken: bool = False
    """The host has agreed to run it."""
    settled: bool = False
    """The coordinator knows for good how it ended: then the host may forget it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job of this host and everything topod must remember of it. Times are epoch seconds."""

    id: JobId
    spec: JobSpec
    state: JobState = JobState.PENDING
    reason: str = ""
    """Why it is in this state, in words; for a pending job, what it waits for."""
    submitted_at: float
    attempt: int = 0
    """Containers made for it so far; part of the container's name. Never reused."""
    starts: int = 0
    """How often its command was started."""
    preemptions: int = 0
    failures: int = 0
    image_ready: bool = False
    not_before: float = 0.0
    """Back-off: not started earlier."""
    restart_first: bool = False
    """A victim whose preemptor gave up: goes before its equals."""
    allocation: Allocation | None = None
    handle: str | None = None
    """The runtime's name of the present attempt's container."""
    stage: Stage | None = None
    stage_since: float = 0.0
    victims: tuple[JobId, ...] = ()
    """While starting: the jobs that are stopped for it."""
    plan: Mapping[str, object] = field(default_factory=dict)
    """The last plan with its reasons, for people (see `explain`)."""
    withdrawn: Withdrawn | None = None
    """While being started: its start was rejected, and its GPUs stay held until nothing can start it."""
    stop: Stop | None = None
    started_at: float | None = None
    """When the present, or the last, attempt was started."""
    checkpoint_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    gpu_seconds: float = 0.0
    """GPU time used by the attempts that ended."""
    ready_at: float | None = None
    """Since when it waits for nothing but room: image local, dependencies met. None: not yet."""
    hold: Allocation | None = None
    """Blocked for long: the GPUs and CPUs kept for it, more with time; then, that it started from that."""
    after: tuple[Dependency, ...] = ()
    """The jobs it still waits for."""
    array: ArrayPlace | None = None
    pinned: Allocation | None = None
    """While pending: the only place where it may run next."""
    pinned_reserved: bool = False
    """Whether nobody else may take that place meanwhile."""
    frozen: str | None = None
    """The checkpoint from which its kept container (`handle`) can be restored."""
    frozen_life: float | None = None
    """When the life had begun that was last frozen, as the runtime says it: an exit of that life, told
    late, is not one of the restored life. Compared as equal or not, never by order: clocks are set.
    """
    moves: int = 0
    """How often it was restarted elsewhere on this host to make room."""
    placed_at: float | None = None
    """When its present plan was decided."""
    pull_failures: int = 0
    leftovers: tuple[Leftover, ...] = ()
    """Containers of ended attempts that are still to be removed."""
    assignment: Assignment | None = None
    """None for a job of this host alone."""

    @property
    def tag(self) -> FleetTag | None:
        """What it is in the fleet; None for a job of this host alone."""
        return None if self.assignment is None else self.assignment.tag

    @property
    def in_gang(self) -> bool:
        """Whether it is one of several that run together on several hosts."""
        return self.assignment is not None and self.assignment.tag.size > 1

    @property
    def priority(self) -> int:
        """The priority that decides order and eviction."""
        return self.spec.request.priority

    @property
    def label(self) -> str:
        """How sentences name the job: `job 17 (train)`, in an array `job 12[3] (train)`."""
        return f"job {self.ident} ({self.spec.name})"

    @property
    def ident(self) -> str:
        """How the command line names the job: `17`, in an array `12[3]`."""
        return named(self.id, self.array)

    @property
    def has_ended(self) -> bool:
        """Whether it will never run again."""
        return self.state in ENDED


_NAMES: Final = tuple(field.name for field in fields(Job))
_values: Final = attrgetter(*_NAMES)
_set: Final = object.__setattr__


def with_reason(job: Job, reason: str) -> Job:
    """Return the job with another reason: what `replace` does, quickly enough for thousands in one step."""
    copy = object.__new__(Job)
    deque(map(_set, repeat(copy), _NAMES, _values(job)), maxlen=0)
    _set(copy, "reason", reason)
    return copy


class MarkKind(StrEnum):
    """Why a GPU is not handed out."""

    DRAINED = "drained"
    UNHEALTHY = "unhealthy"
    QUARANTINED = "quarantined"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One reason why a GPU is not handed out; a GPU can have one of each kind."""

    kind: MarkKind
    reason: str
    since: float
    job: JobId | None = None
    """The job whose remains it is quarantined for."""
    causes: tuple[str, ...] = ()
    """What the watch of the GPUs saw, as codes (`lost`, `xid-79`, `pid-4711`); else empty."""
    accepted: bool = False
    """An administrator uses the GPU all the same: the mark is shown and holds nothing back."""

    @property
    def blocks(self) -> bool:
        """Whether the GPU is kept back for it."""
        return not self.accepted


FIRST_JOB = JobId(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """Everything the daemon must remember. `jobs` holds the jobs that have not been put to rest."""

    generation: int = 0
    """Counts every change; a plan made on an older generation is made again."""
    next_job: JobId = FIRST_JOB
    jobs: Mapping[JobId, Job] = field(default_factory=dict)
    marks: Mapping[str, tuple[Mark, ...]] = field(default_factory=dict)
    """By GPU UUID."""
    drain: str | None = None
    """Why the host is drained; None when it is not."""
    foreign_cpus: Mapping[str, str] = field(default_factory=dict)
    """CPU lists that something topod did not start uses, each with who: `pid 4711 (python, alice)`."""
    blind: str | None = None
    """Why the health of the GPUs is unknown; no job with GPUs starts meanwhile. None when it is known."""
    settled_fence: int = 0
    """The highest fence of all assignments that were settled and may be forgotten."""

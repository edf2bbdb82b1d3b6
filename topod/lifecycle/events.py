"""What can happen: everything that may change the state of a host.

Events that answer an effect carry the attempt they belong to; one that comes late is ignored.
"""

from dataclasses import dataclass

from topod.lifecycle.states import Mark, MarkKind
from topod.model.arrays import ArrayPlan
from topod.model.assignment import FleetTag, Place
from topod.model.container import Observed, Signal
from topod.model.job import Allocation, JobId, JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A user submitted a job, or an array of them: the ids count up from `state.next_job`."""

    spec: JobSpec
    array: ArrayPlan | None = None
    settled: tuple[tuple[int, str], ...] = ()
    """How the jobs that it depends on ended, of those that were put to rest."""
    image_here: bool = False
    """Its image was here a while ago and is not looked for: making the container tells if it has gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """A user cancelled a job that has not ended, and `also` others with it: all at once."""

    job: JobId
    also: tuple[JobId, ...] = ()
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequeueRequested:
    """A user wants a running job, and `also` others, stopped and put back into the queue."""

    job: JobId
    also: tuple[JobId, ...] = ()
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityChanged:
    """A user changed the priority of a job that has not ended."""

    job: JobId
    priority: int
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDrained:
    """No job starts on the host until it is resumed; running ones go on."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostResumed:
    """The host takes jobs again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuMarked:
    """A GPU is no longer handed out. With `requeue` a running job on it goes back into the queue."""

    uuid: str
    mark: Mark
    requeue: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuResumed:
    """An administrator wants a GPU handed out again, whatever it was kept back for."""

    uuid: str
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuNoted:
    """Something about a GPU that people may want to know; nothing follows from it. `job`: who was on it."""

    uuid: str
    text: str
    job: JobId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpusSeen:
    """Whether the GPUs could be looked at; `problem` says why not, empty when they could."""

    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuCleared:
    """A reason not to hand out a GPU is gone; `kind` None clears all of them."""

    uuid: str
    kind: MarkKind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReady:
    """The job's image is on the host."""

    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFailed:
    """The image could not be had; `final` when trying again is of no use."""

    job: JobId
    error: str
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """The container exists and has not been started."""

    job: JobId
    attempt: int
    handle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateFailed:
    """The container could not be made; `image_missing` when only the image is gone."""

    job: JobId
    attempt: int
    error: str
    final: bool
    image_missing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesFree:
    """The GPUs of a starting job are really free."""

    job: JobId
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesBusy:
    """Some GPUs of a starting job did not become free in time: (UUID, why) each.

    With `unknown` nobody could look: then no GPU is at fault and none is named.
    """

    job: JobId
    attempt: int
    busy: tuple[tuple[str, str], ...]
    unknown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The container runs."""

    job: JobId
    attempt: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailed:
    """The container could not be started; `in_doubt` while an earlier order may still start it."""

    job: JobId
    attempt: int
    error: str
    final: bool
    in_doubt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HookDone:
    """A victim's checkpoint hook ended; `ok` when it returned 0 in time."""

    job: JobId
    attempt: int
    ok: bool
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The runtime took the signal, or never will; the time to obey it runs from now."""

    job: JobId
    attempt: int
    signal: Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The container ended. `exit_code` None: nobody saw how."""

    job: JobId
    attempt: int
    exit_code: int | None
    out_of_memory: bool = False
    started_at: float | None = None
    """When the life that ended had begun, where it is known; a frozen container has more than one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The ended attempt's log is complete and its container is gone."""

    job: JobId
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """The daemon came back: what the runtime knows of, all of it."""

    containers: tuple[Observed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """A look at all containers while the daemon runs, taken at `at` (epoch seconds), maybe a little old."""

    containers: tuple[Observed, ...]
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignCpusSeen:
    """All CPUs that something topod did not start uses: (CPU list, who) each; replaces the last look."""

    cpus: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MovesRequested:
    """An administrator lets these running jobs be restarted at other places, to make a group whole."""

    moves: tuple[tuple[JobId, Allocation], ...]
    by: str = ""
    generation: int | None = None
    """Refused where the state is not of this generation any more; None: only what is taken is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """The engine wrote a victim to disk and it has left its GPUs; not `ok`: it still runs, or ended."""

    job: JobId
    attempt: int
    ok: bool
    text: str = ""
    life: float | None = None
    """When the life that was frozen had begun, as the runtime says it (see `Exited.started_at`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """The coordinator wants a job of the fleet to run here. Known, or overtaken, it changes nothing."""

    tag: FleetTag
    spec: JobSpec
    place: Place
    """What the coordinator's plan gives it."""
    refusal: str = ""
    """Why this host cannot run it, as the shell has found out: its policy, a file that is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """The coordinator takes back an assignment, and all of that job with a lower fence."""

    job: int
    """The fleet's."""
    fence: int
    requeue: bool = False
    """It will be placed anew and ends here as returned; False: it was cancelled."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """All hosts of a job are ready: victims may be stopped, and it may start."""

    job: int
    """The fleet's."""
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The coordinator knows for good how an assignment ended: it may be forgotten here."""

    job: int
    """The fleet's."""
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseEnded:
    """The coordinator was not heard for longer than the lease: what may run elsewhere soon must stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSet:
    """The host's clock was set by so many seconds; no time passed."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passed; deadlines are looked at."""


DeviceEvent = (
    HostDrained | HostResumed | GpuMarked | GpuCleared | GpuResumed | GpuNoted | GpusSeen | ForeignCpusSeen
)
"""What concerns the host's GPUs and CPUs, and no job in particular."""

FleetEvent = Assigned | Revoked | Go | Settled | LeaseEnded
"""What the coordinator of a fleet orders, or that it is not heard."""

Event = (
    Submitted
    | CancelRequested
    | RequeueRequested
    | PriorityChanged
    | ImageReady
    | ImageFailed
    | Created
    | CreateFailed
    | DevicesFree
    | DevicesBusy
    | Started
    | StartFailed
    | HookDone
    | Delivered
    | Exited
    | Collected
    | Recovered
    | Swept
    | MovesRequested
    | Frozen
    | ClockSet
    | DeviceEvent
    | FleetEvent
    | Tick
)

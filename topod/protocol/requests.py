"""What topoctl may ask of topod. Unknown fields are refused: a typo is an error."""

from typing import Final, Literal

import msgspec

from topod.model.arrays import ArrayPlan
from topod.model.job import JobSpec
from topod.model.request import PRIORITIES, Affinity


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """Base of the requests; `kind` names the class on the wire."""


class Hello(Request, frozen=True, kw_only=True, tag="hello"):
    """Who is there? Answer: `Welcome`."""


class Submit(Request, frozen=True, kw_only=True, tag="submit"):
    """Queue a job, or an array of them. Answer: `Jobs` with the new ones, once they are durable.

    In `spec.after` a job that is the first of an array means all its members, unless `index` is given.
    """

    spec: JobSpec
    array: ArrayPlan | None = None
    token: str = ""
    """Chosen by the client; a second submit with the same token answers with the first one's job."""
    hosts: int = 1
    """Of a fleet: on so many at a time; `spec` says what is wanted on each."""
    select: list[str] = []
    """Of a fleet: labels that each host must have, as `key=value`."""
    gpu_model: str = ""
    """Of a fleet: a pattern that the model of a host's GPUs must match, in any case: `*h100*`."""


class DryRun(Request, frozen=True, kw_only=True, tag="dry-run"):
    """What would happen to this job now? Answer: `Planned`. Changes nothing."""

    spec: JobSpec
    hosts: int = 1
    """Of a fleet: on so many at a time; `spec` says what is wanted on each."""
    select: list[str] = []
    """Of a fleet: labels that each host must have, as `key=value`."""
    gpu_model: str = ""
    """Of a fleet: a pattern that the model of a host's GPUs must match, in any case: `*h100*`."""


class ListJobs(Request, frozen=True, kw_only=True, tag="list-jobs"):
    """The jobs that have not ended, or with `ended` the last `limit` that have. Answer: `Jobs`."""

    ended: bool = False
    limit: int = 100
    user: str | None = None
    brief: bool = False
    """Leave out each job's plan, and of its spec all but the name: thousands of jobs are listed sooner."""


class GetJob(Request, frozen=True, kw_only=True, tag="get-job"):
    """One job, ended or not. Answer: `Jobs` with one."""

    job: int


class GetArray(Request, frozen=True, kw_only=True, tag="get-array"):
    """All jobs of the array that `job` is the first of, ended or not. Answer: `Jobs`.

    A job that is not the first of an array is answered by itself.
    """

    job: int


class WaitJob(Request, frozen=True, kw_only=True, tag="wait-job"):
    """Answer with the job once its state is in `states` or it ended, or after `timeout` seconds."""

    job: int
    states: list[str] = []
    timeout: float = 20.0


class Cancel(Request, frozen=True, kw_only=True, tag="cancel"):
    """Stop these jobs for good. Answer: `Jobs`; those that had ended before are among them, as they ended."""

    jobs: list[int]
    by: str = ""


class Requeue(Request, frozen=True, kw_only=True, tag="requeue"):
    """Stop these running jobs and queue them again. Answer: `Jobs` with those, the others under `refused`."""

    jobs: list[int]
    by: str = ""


class SetPriority(Request, frozen=True, kw_only=True, tag="set-priority"):
    """Change the priority of jobs that have not ended. Answer: `Jobs`; of the others as they are."""

    job: int
    priority: int
    also: list[int] = []
    """More jobs, such as the others of an array."""
    by: str = ""


class Drain(Request, frozen=True, kw_only=True, tag="drain"):
    """Hand out no more: the whole host, or one GPU (index or UUID). Answer: `Done`."""

    gpu: str | None = None
    reason: str


class Resume(Request, frozen=True, kw_only=True, tag="resume"):
    """Undo `Drain`; on a GPU also clears quarantine. Answer: `Done`."""

    gpu: str | None = None


class GetHost(Request, frozen=True, kw_only=True, tag="get-host"):
    """The host and who holds what. Answer: `Host`."""


class OfFleet(Request, frozen=True, kw_only=True):
    """Base of what only a coordinator can answer."""


class GetHosts(OfFleet, frozen=True, kw_only=True, tag="get-hosts"):
    """The hosts of a fleet. Answer: `Hosts`. Only a coordinator has any."""


class GetCounts(OfFleet, frozen=True, kw_only=True, tag="get-counts"):
    """What a coordinator counts. Answer: `Counts`."""


class DrainHost(OfFleet, frozen=True, kw_only=True, tag="drain-host"):
    """Give a host of the fleet no more jobs. Answer: `Done`."""

    host: str
    reason: str
    requeue: bool = False
    """Its jobs are stopped and go on elsewhere; else they run to their end there."""


class ResumeHost(OfFleet, frozen=True, kw_only=True, tag="resume-host"):
    """Undo `DrainHost`. Answer: `Done`."""

    host: str


class LabelHost(OfFleet, frozen=True, kw_only=True, tag="label-host"):
    """Set labels of a host of the fleet; they win over its own. Answer: `Done`."""

    host: str
    labels: dict[str, str] = {}
    remove: list[str] = []
    """Labels that an administrator set, to be set no more."""


class RemoveHost(OfFleet, frozen=True, kw_only=True, tag="remove-host"):
    """Take a host that is gone out of the fleet. Answer: `Done`."""

    host: str
    dead: bool = False
    """Nothing runs there any more, the asker vouches: its jobs are placed anew at once."""
    by: str = ""


class GetFairness(Request, frozen=True, kw_only=True, tag="get-fairness"):
    """Quotas, disruption budgets, and who is kept GPUs for. Answer: `Fairness`."""

    by: str = ""
    """Whose quotas are told even without a job; who asks, by the kernel."""


class GetConfig(Request, frozen=True, kw_only=True, tag="get-config"):
    """What is in force, where it came from, and what waits. Answer: `Configuration`."""


class PlanMoves(Request, frozen=True, kw_only=True, tag="plan-moves"):
    """Which running jobs would move, so that free GPUs are together? Answer: `Moves`. Changes nothing."""

    affinity: Affinity | None = None
    """How close the GPUs must be; None: the closest level that joins any GPUs of this host."""
    gpus: int | None = None
    """So many together are enough; None: as many as possible."""
    cpus: int | Literal["auto"] = 0
    """With `gpus`: CPUs that must be free beside them."""
    below: int = PRIORITIES["high"]
    """Only jobs of a lower priority than this move."""
    most: int | None = None
    """At most so many jobs move."""


class MakeMoves(Request, frozen=True, kw_only=True, tag="make-moves"):
    """Let the jobs move that `PlanMoves` names. Answer: `Moves`, once that is durable."""

    plan: PlanMoves = PlanMoves()
    expected: dict[int, list[int]] | None = None
    """Job to new GPU indices as told before; refused when planning again gives anything else."""
    by: str = ""


class ReadLog(Request, frozen=True, kw_only=True, tag="read-log"):
    """Bytes of a job's output from `offset`; waits up to `wait` seconds for new ones. Answer: `LogChunk`."""

    job: int
    attempt: int | None = None
    """None: the latest that was started."""
    offset: int = 0
    """Negative: that many bytes before the end."""
    limit: int = 65536
    wait: float = 0.0
    rank: int | None = None
    """Of a job of a fleet over several hosts: which of them; None: the first that has it."""


class Exec(Request, frozen=True, kw_only=True, tag="exec"):
    """Start a command beside a running job. Answer: `ExecBegun`."""

    job: int
    command: list[str]
    stdin: bool = False
    by: str = ""
    rank: int | None = None
    """As in `ReadLog`."""


class ExecTalk(Request, frozen=True, kw_only=True, tag="exec-talk"):
    """Give a command input and get its output, waiting up to `wait` seconds for some. Answer: `ExecOutput`.

    Who does not ask again within half a minute has left, and the command is ended.
    """

    session: str
    """From `ExecBegun`; it cannot be guessed, and who knows it may talk."""
    data: bytes = b""
    eof: bool = False
    """No more input will come, once `data` is taken whole."""
    wait: float = 1.0


class ExecStop(Request, frozen=True, kw_only=True, tag="exec-stop"):
    """End a command. Answer: `Done`."""

    session: str


class ReadEvents(Request, frozen=True, kw_only=True, tag="read-events"):
    """Events after `since`, oldest first; negative `since`: the last that many. Answer: `Events`."""

    since: int = -50
    limit: int = 1000
    job: int | None = None


class Follow(Request, frozen=True, kw_only=True, tag="follow"):
    """What changed since an earlier answer; answered when something has. Answer: `Changes`.

    Of a fleet: `FleetChanges`.

    `life` and `since` come from that answer (empty and 0: there was none); `event` is the last known event.
    """

    life: str = ""
    since: int = 0
    event: int = 0
    seconds: float = 20.0
    """How long to wait for a change."""


HostRequest = (
    ListJobs
    | GetJob
    | GetArray
    | WaitJob
    | Drain
    | Resume
    | GetHost
    | GetFairness
    | GetConfig
    | PlanMoves
    | MakeMoves
    | ReadEvents
    | Follow
)
"""What a fleet passes on to one of its hosts. Job ids are the host's own."""


class AtHost(OfFleet, frozen=True, kw_only=True, tag="at-host"):
    """What does this host of the fleet answer to that? Answer: the host's. Only a coordinator has hosts."""

    host: str
    request: HostRequest
    by: str = ""


AnyRequest = (
    Hello
    | Submit
    | DryRun
    | ListJobs
    | GetJob
    | GetArray
    | WaitJob
    | Cancel
    | Requeue
    | SetPriority
    | Drain
    | Resume
    | GetHost
    | GetHosts
    | GetCounts
    | DrainHost
    | ResumeHost
    | LabelHost
    | RemoveHost
    | GetFairness
    | GetConfig
    | PlanMoves
    | MakeMoves
    | ReadLog
    | Exec
    | ExecTalk
    | ExecStop
    | ReadEvents
    | AtHost
    | Follow
)

READS: Final = (
    Hello,
    DryRun,
    ListJobs,
    GetJob,
    GetArray,
    WaitJob,
    GetHost,
    GetHosts,
    GetCounts,
    GetFairness,
    GetConfig,
    PlanMoves,
    ReadLog,
    ReadEvents,
    Follow,
)
"""These change nothing: asked twice, they are answered twice."""


def changes_nothing(request: AnyRequest) -> bool:
    """Whether a request may be sent again by whoever does not know whether it arrived."""
    return isinstance(request.request if isinstance(request, AtHost) else request, READS)

"""What topod answers. Unknown fields are tolerated: an old topoctl reads a new topod."""

from typing import Any

import msgspec

from topod.protocol.views import (
    BudgetView,
    EventView,
    FleetHostView,
    FleetNow,
    FleetRow,
    GpuReading,
    GpuView,
    HoldView,
    HostNow,
    HostView,
    JobLine,
    JobView,
    KindView,
    QuotaView,
)


class Reply(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Base of the replies; exactly one answers each request."""


class Welcome(Reply, frozen=True, kw_only=True, tag="welcome"):
    """Who answers."""

    version: str
    protocol: int
    host: str
    emulated: bool
    runtime: str
    runtime_text: str
    pid: int
    state_dir: str
    events_endpoint: str
    generation: int
    started_at: float
    notes: list[str] = []
    """What does not work just now, and what is only recorded on an emulated host."""
    user: str = ""
    """Who asks, by the kernel."""
    roles: list[str] = []
    """What the asker may do: `view`, `submit`, `administer`."""
    troubles: list[str] = []
    """Those of the notes that tell what does not work just now."""
    groups: dict[str, list[str]] = {}
    """The Unix groups that the configuration names, by key: `security.submit`."""
    engine: str = ""
    """Where its container engine is asked: `unix:///var/run/docker.sock`; empty: it has none."""
    fleet: bool = False
    """It is a fleet's coordinator that answers."""
    metrics_url: str = ""
    """Where it tells Prometheus of itself; empty: nowhere."""
    now: float = 0.0
    """What its clock shows (epoch seconds); 0: it does not say."""
    coordinator_ahead: float | None = None
    """Of a host in a fleet: how many seconds the coordinator's clock is ahead; None: not known."""
    coordinator_ahead_within: float = 0.0
    """How many seconds more or less that may be."""


class Jobs(Reply, frozen=True, kw_only=True, tag="jobs"):
    """Jobs, oldest first."""

    jobs: list[JobView]
    troubles: list[str] = []
    """Of a list: what does not work for topod just now: `store: no space left`."""
    refused: list[str] = []
    """To a `Requeue`: why others that were named are not among them."""


class JobLines(Reply, frozen=True, kw_only=True, tag="job-lines"):
    """Jobs in brief, oldest first."""

    jobs: list[JobLine]
    troubles: list[str] = []
    """As in `Jobs`."""


class Planned(Reply, frozen=True, kw_only=True, tag="planned"):
    """What a job would get now. `plan` as in `JobView.plan`; `reason` says why it would wait."""

    feasible: bool
    plan: dict[str, Any] = {}
    reason: str = ""
    details: list[str] = []
    never: bool = False
    """The empty host would refuse it too, or its policy does, with this reason: so would `submit`."""
    drained: str | None = None
    """Why the host is drained, where it is: `plan` is then what the job would get if it were not."""


class Moves(Reply, frozen=True, kw_only=True, tag="moves"):
    """Which jobs move where. `made`: they have been told to; else it is a plan."""

    affinity: str
    plan: dict[str, Any]
    """See docs/reference/json-output.md."""
    generation: int
    made: bool = False


class Host(Reply, frozen=True, kw_only=True, tag="host"):
    """The host now."""

    host: HostView


class Hosts(Reply, frozen=True, kw_only=True, tag="hosts"):
    """The hosts of a fleet, by name."""

    hosts: list[FleetHostView]


class Counts(Reply, frozen=True, kw_only=True, tag="counts"):
    """What a coordinator counts."""

    host_states: dict[str, int] = {}
    """Hosts by state."""
    job_states: dict[str, int] = {}
    """Jobs that have not ended, by state; those that are `pending` are the queue."""
    placements: int = 0
    """Since this coordinator began to lead."""
    port: dict[str, int] = {}
    """Of its port: `connections` and `half_open` now; how many were `accepted`, `admitted`, and by reason
    refused or cut, since its start. What never was is left out."""


class Fairness(Reply, frozen=True, kw_only=True, tag="fairness"):
    """How the site's rules stand now."""

    quotas: list[QuotaView] = []
    budgets: list[BudgetView] = []
    hold: HoldView | None = None


class ConfigRow(msgspec.Struct, frozen=True, kw_only=True):
    """One value of the configuration, and where it came from."""

    key: str
    """`section.key`, `quota 1`, or `--option`."""
    value: Any = None
    text: str
    """As it is written in a file."""
    origin: str
    """`FILE:LINE`, `$VARIABLE`, `--option` or `default`."""
    waits: str = ""
    """The files say something else, which waits for a `reload` or a `restart`; empty: nothing waits."""
    coming: Any = None
    coming_text: str = ""
    coming_origin: str = ""


class Configuration(Reply, frozen=True, kw_only=True, tag="configuration"):
    """What a daemon is configured by; secrets are hidden."""

    rows: list[ConfigRow] = []
    files: list[str] = []
    mistakes: list[str] = []
    """Of the files as they are now: a reload would refuse them."""
    running: bool = False
    """What is in force in a running daemon; else what a start would take."""


class LogChunk(Reply, frozen=True, kw_only=True, tag="log-chunk"):
    """A piece of output. `ended`: nothing more will come after it.

    Of a long output only the end is kept; an offset counts from its first byte all the same.
    """

    attempt: int
    data: bytes
    next_offset: int
    ended: bool
    skipped: int = 0
    """So many bytes from the offset asked for on are no longer kept; `data` begins after them."""
    gone: bool = False
    """The attempt's output is no longer kept at all."""


class ExecBegun(Reply, frozen=True, kw_only=True, tag="exec-begun"):
    """A command was started."""

    session: str


class ExecOutput(Reply, frozen=True, kw_only=True, tag="exec-output"):
    """What a command printed since the last question. With `ended` it is over and all is told."""

    stdout: bytes = b""
    stderr: bytes = b""
    taken: int = 0
    """Of the input that came with the question, so many bytes were taken."""
    ended: bool = False
    exit_code: int | None = None


class Events(Reply, frozen=True, kw_only=True, tag="events"):
    """Events, oldest first."""

    events: list[EventView]


class Changes(Reply, frozen=True, kw_only=True, tag="changes"):
    """What is new since `Follow.since`; the next question names `life` and `number`.

    Whoever takes every answer in has the state as it is at `now`, and has missed no event.
    """

    life: str
    """Of this topod since its start: numbers of another life mean nothing."""
    number: int
    now: float
    """Its clock, epoch seconds."""
    whole: bool = False
    """These are all jobs that have not ended, and all GPUs: what is not here is not there any more."""
    jobs: list[JobLine] = []
    """Jobs that are new or changed, those that ended too."""
    gpus: list[GpuView] = []
    readings: list[GpuReading] = []
    """Of all GPUs, when there is a new one."""
    host: HostView | None = None
    """When `whole`."""
    changed: HostNow | None = None
    events: list[EventView] = []


class FleetChanges(Reply, frozen=True, kw_only=True, tag="fleet-changes"):
    """What is new of a fleet since `Follow.since`; as `Changes` of a host.

    A coordinator that has begun to lead since has another `life`, and tells all anew.
    """

    life: str
    number: int
    now: float
    """The coordinator's clock, epoch seconds."""
    whole: bool = False
    """These are all jobs that have not ended, and all hosts: what is not here is not there any more."""
    jobs: list[JobLine] = []
    """Jobs that are new or changed, those that ended too."""
    hosts: list[FleetRow] = []
    """Hosts that are new or changed."""
    gone: list[str] = []
    """Hosts that were taken out of the fleet."""
    kinds: list[KindView] = []
    """Kinds of hardware that are new."""
    changed: FleetNow | None = None
    events: list[EventView] = []


class Done(Reply, frozen=True, kw_only=True, tag="done"):
    """It is done and durable."""

    text: str = ""


class Failure(Reply, frozen=True, kw_only=True, tag="failure"):
    """It was not done. `code` and `exit_status` are those of `topod.errors`."""

    code: str
    text: str
    hint: str | None = None
    exit_status: int = 1


AnyReply = (
    Welcome
    | Jobs
    | JobLines
    | Planned
    | Host
    | Hosts
    | Counts
    | Fairness
    | Configuration
    | Moves
    | LogChunk
    | ExecBegun
    | ExecOutput
    | Events
    | Changes
    | FleetChanges
    | Done
    | Failure
)

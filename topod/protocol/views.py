"""What topod tells of its jobs and its host: the stable JSON that programs read.

Fields are only ever added. Times are epoch seconds, sizes bytes.
"""

from typing import Any

import msgspec

from topod.model.job import JobSpec


class JobLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job of a list of thousands: all but its plan and its request in full. Defaults are left out."""

    id: int
    name: str
    user: str
    state: str
    stage: str | None = None
    reason: str = ""
    priority: int
    preemptible: bool = True
    gpus: int
    """GPUs asked for, on each of its hosts."""
    host_count: int = 1
    """In a fleet: on so many hosts at a time."""
    affinity: str
    policy: str
    cpus: int | str
    cpu_affinity: str
    gpu_indices: list[int] = []
    """GPUs held now, or last."""
    gpu_uuids: list[str] = []
    cpu_list: str = ""
    submitted_at: float
    placed_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    attempt: int = 0
    starts: int = 0
    preemptions: int = 0
    effective_priority: int | None = None
    """What protects and queues it now, where that differs from `priority`."""
    held_gpus: list[int] = []
    """Indices of GPUs that are kept for it because it has been blocked for long."""
    failures: int = 0
    """Failures in a row; a run of more than five minutes ends the row."""
    next_try_at: float | None = None
    """After a failure: before then it is not tried again."""
    exit_code: int | None = None
    gpu_seconds: float = 0.0
    victims: list[int] = []
    moves: int = 0
    """How often it was restarted elsewhere on the host to make room."""
    moving_to: list[int] = []
    """GPUs reserved for it while it moves there."""
    handle: str | None = None
    label: str = ""
    """How topod names the job in sentences: `job 12[3] (train)`."""
    array_id: int | None = None
    """The first job of the array that it belongs to."""
    array_index: int | None = None
    array_limit: int | None = None
    """At most so many of the array run at a time."""
    array_count: int | None = None
    after: list[int] = []
    """The jobs that it still waits for."""
    frozen: bool = False
    """Its container is on disk and goes on from there."""
    hosts: list[str] = []
    """In a fleet: where it is, or was last, by rank."""


class JobView(JobLine, frozen=True, kw_only=True, omit_defaults=False):
    """One job as `topoctl ps -o json` and `topoctl show -o json` print it."""

    plan: dict[str, Any] = {}
    spec: JobSpec
    members: list["MemberView"] = []
    """In a fleet: the job on each of its hosts, by rank."""
    earlier: list["EarlierView"] = []
    """In a fleet: where it ran before that, and its output lies; the oldest first."""
    rendezvous: str = ""
    """Of a job over several hosts, `ADDRESS:PORT`: where its members meet."""


class MemberView(msgspec.Struct, frozen=True, kw_only=True):
    """A job of a fleet on one of its hosts. `state` is a state of that host, `assigned` or `lost`."""

    host: str
    address: str = ""
    """By which the other members reach it."""
    rank: int
    local_job: int | None
    """Its number on the host; None: the host has not confirmed it."""
    state: str
    gpu_indices: list[int] = []
    cpu_list: str = ""
    victims: list[str] = []
    """Jobs of the host, by their numbers there, that were to be stopped for it."""


class EarlierView(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job of a fleet, or one member of it, ran in an assignment that is over."""

    host: str
    rank: int = 0
    local_job: int
    """Its number on the host."""
    attempts: list[int]
    """The first and the last of its attempts there, as `topoctl logs --attempt` counts them."""


class QuotaView(msgspec.Struct, frozen=True, kw_only=True):
    """One quota now. `scope`: `user` or `label`; `key` is the label, empty for users."""

    scope: str
    key: str
    value: str
    gpus: int
    """GPUs held, those being taken or given back included."""
    limit: int


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """One disruption budget now."""

    label: str
    value: str
    running: int
    """Jobs that run and are not about to be stopped."""
    min_running: int
    may_stop: int


class HoldView(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept for a job that has been blocked for long."""

    job: int
    ident: str = ""
    """How people name it: `12`, in an array `12[3]`; empty from an older topod."""
    gpus: list[int]
    """Indices held now."""
    target: list[int]
    """Indices that will be held in the end."""
    since: float | None
    """Since when the job has waited for nothing but room."""


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the host's story. `seq` counts up by one and is never reused."""

    seq: int
    at: float
    name: str
    job: int | None
    text: str
    data: dict[str, Any] = {}


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    """The host now: `document` is a host document (see docs/reference/host-document.md)."""

    name: str
    emulated: bool
    runtime: str
    drain: str | None
    generation: int
    document: dict[str, Any]
    gpus: list["GpuView"]
    notes: list[str] = []
    foreign_cpus: dict[str, str] = {}
    """CPU lists that something topod did not start is bound to and uses, with who."""
    blind: str | None = None
    """Why the health of the GPUs is unknown; no job with GPUs starts meanwhile."""


class GpuView(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU now. `state`: free, held, releasing, reserved, foreign, unhealthy, drained, quarantined."""

    index: int
    uuid: str
    name: str
    numa_node: int | None
    state: str
    job: int | None = None
    ident: str | None = None
    """How people name the job: `12`, in an array `12[3]`."""
    next_job: int | None = None
    """The job it is reserved for while another still holds it ..."""
    next_ident: str | None = None
    """... and its name."""
    priority: int | None = None
    reason: str = ""
    """Every mark in words: `unhealthy: ...; drained: ...`; also those that an administrator set aside."""
    marks: list[str] = []
    """What keeps it back, whoever is on it: unhealthy, quarantined, foreign, drained."""
    idle_since: float | None = None
    """Since when the job on it has not used it: 0% at every look."""


class GpuReading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one GPU measures now. None: it does not tell."""

    index: int
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilisation_percent: int | None = None
    temperature_celsius: int | None = None
    slowdown: str | None = None
    """What it is slowed down for."""
    problem: str | None = None
    """Why it cannot be read."""


class HostNow(msgspec.Struct, frozen=True, kw_only=True):
    """What changes of a host beside its GPUs and its jobs."""

    drain: str | None = None
    blind: str | None = None
    """Why the health of the GPUs is unknown; no job with GPUs starts meanwhile."""
    foreign_cpus: dict[str, str] = {}
    """CPU lists that something topod did not start is bound to and uses, with who."""
    troubles: list[str] = []


class FleetHostView(msgspec.Struct, frozen=True, kw_only=True):
    """One host of a fleet now.

    `state`: ready, joining, cordoned, drained, closed (by the host itself), silent, away.
    """

    name: str
    state: str
    reason: str = ""
    gpus: int | None
    """None: not known since the coordinator was started."""
    free_gpus: int | None
    gpu_models: list[str] = []
    jobs: list[int] = []
    """The fleet's jobs on it, that have not ended."""
    labels: dict[str, str] = {}
    hardware: str = ""
    version: str = ""
    heard_at: float | None = None
    known_since: float = 0.0
    runtime: str = ""
    emulated: bool = False
    troubles: list[str] = []


class FreeGroup(msgspec.Struct, frozen=True, array_like=True):
    """So many groups of that many free GPUs, `[affinity, size, count]`; single ones: `any`."""

    affinity: str
    size: int
    count: int


class GpuPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a GPU is, `[island, numa, switch]`: GPUs with the same number are together there.

    A number means nothing by itself; -1: not known.
    """

    island: int
    """Of GPUs each of which has an NVLink to each other."""
    numa: int
    switch: int
    """Of GPUs that a PCIe switch joins, or NVLink."""


class KindView(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of hardware: hosts of a kind differ in names and serial numbers only."""

    name: str
    """As `FleetRow.kind` says it."""
    gpus: list[GpuPlace]
    """By index."""


class HeldGpus(msgspec.Struct, frozen=True, array_like=True):
    """GPUs of a host that a job holds, `[ident, priority, gpus, job, state]`."""

    ident: str
    """How people name the job: `12`, in an array `12[3]`; one of the host's own users `7 of gpu-3`."""
    priority: int
    gpus: int
    """Mask: bit i for the GPU with index i."""
    job: int | None = None
    """Its number in the fleet; None: it is none of the fleet's."""
    state: str = "held"
    """Or `reserved`: given to the job, and the host has not confirmed it."""


class BlockedGpus(msgspec.Struct, frozen=True, array_like=True):
    """GPUs of a host that nobody may take now, `[state, gpus, reason]`."""

    state: str
    """unhealthy, quarantined, foreign, drained, reserved, blocked."""
    gpus: int
    """Mask."""
    reason: str


class FleetRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One host of a fleet and who holds its GPUs, in brief; GPUs that nothing here names are free."""

    name: str
    state: str
    """As in `FleetHostView`."""
    reason: str = ""
    kind: str = ""
    """Its hardware in a few words; what is known of that kind is told once (`KindView`)."""
    gpus: int | None = None
    """None: not known since the coordinator was started."""
    held: list[HeldGpus] = []
    blocked: list[BlockedGpus] = []
    free: list[FreeGroup] = []
    """The closest first, the largest of these first."""
    jobs: int = 0
    """The fleet's jobs on it."""
    waiting: int = 0
    """Of these, those that wait there to be started again."""
    heard_at: float | None = None
    """Of a host that is silent: when it was heard last (epoch seconds)."""
    emulated: bool = False
    troubles: list[str] = []
    labels: dict[str, str] = {}


class FleetNow(msgspec.Struct, frozen=True, kw_only=True):
    """What changes of a fleet beside its hosts and its jobs."""

    endpoint: str
    """Where this coordinator is reached."""
    epoch: int
    """How often one has begun to lead."""
    troubles: list[str] = []

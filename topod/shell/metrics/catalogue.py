"""Every metric that topod has, with its meaning: the page docs/reference/metrics.md is written from this.

Names and units are Prometheus's: base units, `_total` for what only rises. No label holds a job, a user or
any other word without bounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import product
from typing import Final

from topod.lifecycle.states import MarkKind
from topod.model.request import PRIORITIES, Affinity
from topod.shell.telling import Phase, Verdict

WAIT_BUCKETS: Final = (0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
DECISION_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
PHASE_BUCKETS: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LEVELS: Final = tuple(sorted(PRIORITIES, key=lambda name: PRIORITIES[name]))
GPU_STATES: Final = (
    "free",
    "held",
    "releasing",
    "reserved",
    "foreign",
    "unhealthy",
    "drained",
    "quarantined",
)
GROUP_STATES: Final = ("free", "used", "kept_back")
GROUPED: Final = (Affinity.NVLINK, Affinity.PCIE, Affinity.NUMA)
HOST_JOB_STATES: Final = ("pending", "starting", "running", "stopping", "preempted")
HOST_ENDS: Final = ("succeeded", "failed", "cancelled", "lost", "returned")
FLEET_JOB_STATES: Final = ("pending", "assigned", "starting", "running", "stopping")
FLEET_ENDS: Final = ("succeeded", "failed", "cancelled", "lost")
HOST_STATES: Final = ("ready", "joining", "cordoned", "drained", "closed", "silent", "away")


class Kind(StrEnum):
    """What Prometheus calls the type of a metric."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. `labels`: the values that each label always has; empty: those that occur."""

    name: str
    kind: Kind
    help: str
    labels: Mapping[str, tuple[str, ...]]
    buckets: tuple[float, ...] = ()

    def combinations(self) -> tuple[tuple[str, ...], ...]:
        """Return all values of the labels together, where they are known beforehand; else none."""
        return tuple(product(*self.labels.values())) if all(self.labels.values()) else ()


@lru_cache(4096)
def level_of(priority: int) -> str:
    """Return the highest named priority that a number reaches; below all of them the lowest."""
    reached = [name for name in LEVELS if PRIORITIES[name] <= priority]
    return reached[-1] if reached else LEVELS[0]


def _gauge(name: str, text: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(name=f"topod_{name}", kind=Kind.GAUGE, help=text, labels=labels)


def _counter(name: str, text: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(name=f"topod_{name}_total", kind=Kind.COUNTER, help=text, labels=labels)


def _seconds(name: str, text: str, buckets: tuple[float, ...], **labels: tuple[str, ...]) -> Metric:
    return Metric(
        name=f"topod_{name}_seconds", kind=Kind.HISTOGRAM, help=text, labels=labels, buckets=buckets
    )


_VERDICTS: Final = tuple(verdict.value for verdict in Verdict)
_MARKS: Final = tuple(kind.value for kind in MarkKind)

BUILD: Final = _gauge(
    "build_info", "1, with the version and what it is: host or coordinator.", version=(), part=()
)
STARTED: Final = _gauge("start_time_seconds", "When this process was started, in epoch seconds.")
TROUBLE: Final = _gauge(
    "trouble", "1 for each thing that does not work just now; the log says why.", subject=()
)
REQUESTS: Final = _counter(
    "requests", "Requests of users, by outcome: ok, or the code of the error.", request=(), outcome=()
)
COMMON: Final = (BUILD, STARTED, TROUBLE, REQUESTS)

HOST: Final = _gauge(
    "host_info", "1, with the runtime of the jobs and whether the host is emulated.", runtime=(), emulated=()
)
GPUS: Final = _gauge("gpus", "GPUs by state.", state=GPU_STATES)
GROUP_GPUS: Final = _gauge(
    "group_gpus",
    "GPUs of each affinity group (named by its GPUs) by state: free, used, or kept_back by a mark.",
    affinity=(),
    group=(),
    state=(),
)
LARGEST_FREE: Final = _gauge(
    "largest_free_group_gpus",
    "The most GPUs that a job of this affinity could have at once without stopping anybody.",
    affinity=tuple(level.value for level in GROUPED),
)
GPU_MARKED: Final = _gauge(
    "gpu_marked", "1 for each GPU (index) and reason why it is not handed out.", gpu=(), kind=()
)
GPU_CAUSE: Final = _gauge(
    "gpu_cause",
    "1 for each GPU (index) and what was seen of it: lost, ecc, xid-79, row-remap-failed, process, ...",
    gpu=(),
    cause=(),
)
GPUS_SEEN: Final = _gauge(
    "gpus_seen", "1: the health of the GPUs is known; 0: it is not, and nothing starts on them."
)
FOREIGN_CPUS: Final = _gauge("foreign_cpus", "CPUs that something uses which topod did not start.")
DRAINED: Final = _gauge("host_drained", "1: the host is drained.")
RECOVERED: Final = _gauge(
    "recovered", "1: the runtime was looked at since the start; 0: nothing is started yet."
)
ENGINE_UP: Final = _gauge("engine_up", "1: the container engine answers, as of the last look.")
STORE_UP: Final = _gauge(
    "store_up", "1: decisions can be made durable, as of the last look; 0: nothing new is accepted."
)
COORDINATOR_UP: Final = _gauge(
    "coordinator_up", "1: the fleet's coordinator is heard; absent on a host alone."
)
JOBS: Final = _gauge(
    "jobs", "Jobs that have not ended, by state and priority.", state=HOST_JOB_STATES, priority=LEVELS
)
OLDEST: Final = _gauge(
    "oldest_pending_seconds",
    "How long ago the oldest pending job was submitted; 0: none is.",
    priority=LEVELS,
)
PREEMPTING: Final = _gauge("preemptions_in_progress", "Preemptions that go on.")
SUBMITTED: Final = _counter("jobs_submitted", "Jobs submitted or assigned here.", priority=LEVELS)
ENDED: Final = _counter("jobs_ended", "Jobs that ended, by how.", state=HOST_ENDS)
DECISIONS: Final = _counter(
    "decisions", "Decisions about jobs, by what they came to.", outcome=_VERDICTS, priority=LEVELS
)
DECIDING: Final = _seconds(
    "decision_duration",
    "How long the step took in which a job was decided about.",
    DECISION_BUCKETS,
    outcome=_VERDICTS,
)
AFFINITY: Final = _counter(
    "affinity_placements",
    "Placements of jobs with GPUs by the affinity asked for, satisfied or missed.",
    affinity=tuple(level.value for level in Affinity),
    result=("satisfied", "missed"),
)
PREEMPTIONS: Final = _counter("preemptions", "Preemptions that are over.", result=("completed", "given_up"))
VICTIMS: Final = _counter(
    "victims", "Jobs that were stopped for another one, by their own priority.", priority=LEVELS
)
PREEMPTION: Final = _seconds(
    "preemption_duration", "From the decision until the preemptor runs.", PHASE_BUCKETS
)
PHASES: Final = _seconds(
    "preemption_phase_duration",
    "The same by phase; those of preemptions that are given up count too.",
    PHASE_BUCKETS,
    phase=tuple(phase.value for phase in Phase),
)
QUEUE_WAIT: Final = _seconds(
    "queue_wait", "From the submit of a job until it runs for the first time.", WAIT_BUCKETS, priority=LEVELS
)
GPU_MARKS: Final = _counter("gpu_marks", "How often GPUs were kept back, by kind.", kind=_MARKS)
OF_HOST: Final = (
    HOST,
    GPUS,
    GROUP_GPUS,
    LARGEST_FREE,
    GPU_MARKED,
    GPU_CAUSE,
    GPUS_SEEN,
    FOREIGN_CPUS,
    DRAINED,
    RECOVERED,
    ENGINE_UP,
    STORE_UP,
    COORDINATOR_UP,
    JOBS,
    OLDEST,
    PREEMPTING,
    SUBMITTED,
    ENDED,
    DECISIONS,
    DECIDING,
    AFFINITY,
    PREEMPTIONS,
    VICTIMS,
    PREEMPTION,
    PHASES,
    QUEUE_WAIT,
    GPU_MARKS,
)

LEADS: Final = _gauge(
    "fleet_leads", "1: this coordinator leads. The other metrics of the fleet are the leader's alone."
)
FLEET_HOSTS: Final = _gauge("fleet_hosts", "Hosts of the fleet by state.", state=HOST_STATES)
FLEET_GPUS: Final = _gauge(
    "fleet_gpus", "GPUs of the hosts that have reported: free, used, or kept_back.", state=GROUP_STATES
)
FLEET_JOBS: Final = _gauge(
    "fleet_jobs",
    "Jobs of the fleet that have not ended, by state and priority.",
    state=FLEET_JOB_STATES,
    priority=LEVELS,
)
FLEET_OLDEST: Final = _gauge(
    "fleet_oldest_pending_seconds",
    "How long ago the oldest pending job of the fleet was submitted; 0: none is.",
    priority=LEVELS,
)
FLEET_SUBMITTED: Final = _counter("fleet_jobs_submitted", "Jobs submitted to the fleet.", priority=LEVELS)
FLEET_ENDED: Final = _counter("fleet_jobs_ended", "Jobs of the fleet that ended, by how.", state=FLEET_ENDS)
FLEET_DECISIONS: Final = _counter(
    "fleet_decisions",
    "Decisions about jobs of the fleet, by what they came to.",
    outcome=_VERDICTS,
    priority=LEVELS,
)
FLEET_DECIDING: Final = _seconds(
    "fleet_decision_duration",
    "How long the step took in which a job of the fleet was decided about.",
    DECISION_BUCKETS,
    outcome=_VERDICTS,
)
FLEET_VICTIMS: Final = _counter(
    "fleet_planned_victims", "Jobs that hosts were told to stop for jobs of the fleet."
)
FLEET_REQUEUED: Final = _counter(
    "fleet_jobs_requeued", "Jobs of the fleet that are placed anew after they had been given to hosts."
)
FLEET_WAIT: Final = _seconds(
    "fleet_queue_wait",
    "From the submit of a job of the fleet until it runs for the first time.",
    WAIT_BUCKETS,
    priority=LEVELS,
)
CONNECTIONS: Final = _gauge(
    "port_connections",
    "Connections to the port: all, and of these half_open ones.",
    state=("all", "half_open"),
)
PORT: Final = _counter(
    "port_connections_opened",
    "Connections that were accepted, and admitted by their key.",
    result=("accepted", "admitted"),
)
REFUSED: Final = _counter(
    "messages_refused",
    "What the port refused or cut, by reason; the log names who, once a minute.",
    reason=(),
)
OF_FLEET: Final = (
    LEADS,
    STORE_UP,
    FLEET_HOSTS,
    FLEET_GPUS,
    FLEET_JOBS,
    FLEET_OLDEST,
    FLEET_SUBMITTED,
    FLEET_ENDED,
    FLEET_DECISIONS,
    FLEET_DECIDING,
    FLEET_VICTIMS,
    FLEET_REQUEUED,
    FLEET_WAIT,
    CONNECTIONS,
    PORT,
    REFUSED,
)
ALL: Final = tuple(dict.fromkeys(metric.name for metric in (*COMMON, *OF_HOST, *OF_FLEET)))
"""The names of all of them, each once."""

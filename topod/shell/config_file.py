"""The sections of the configuration, their defaults, and what cannot be meant in them.

`docs/reference/configuration.md` explains every key.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from math import inf
from typing import Any, Final, Literal

import msgspec

from topod.health.rules import IGNORED_PROCESSES, HealthRules
from topod.health.xids import CRITICAL
from topod.model.job import Network
from topod.model.rules import EACH, DisruptionBudget, Quota, Rules, Scope
from topod.ports import LOG_BYTES
from topod.protocol import jobfields
from topod.shell.config_kinds import Level, Seconds, Section, Size
from topod.shell.coordinator_config import CoordinatorSection, StoreSection, check_coordinator, check_store
from topod.shell.fleet_config import FleetSection, check_fleet
from topod.shell.metrics.port import check_place

SHORTEST_INTERVAL: Final = 0.1
LEAST_LOG_BYTES: Final = 1 << 20


class FairnessSection(Section, frozen=True, kw_only=True):
    """`[fairness]`: see `topod.model.rules.Rules`."""

    preemption_cap: int = 3
    preemption_boost: int = 100
    preemption_ceiling: Level = Level(999)
    hold_after: Seconds = Seconds(3600)
    hold_step: Seconds = Seconds(600)
    hold_below: Level = Level(1000)


class QuotaSection(Section, frozen=True, kw_only=True):
    """One `[[quota]]`: GPUs of one user, of each user (`user = "*"`), or of a label (`"team=vision"`)."""

    gpus: int
    user: str | None = None
    label: str | None = None


class BudgetSection(Section, frozen=True, kw_only=True):
    """One `[[budget]]`: `label = "service=chat-7b"`, or `"service=*"` for each value by itself."""

    label: str
    min_running: int


class HealthSection(Section, frozen=True, kw_only=True):
    """`[health]`: what makes a GPU unfit, and how often it is looked at; see `topod.health.rules`."""

    interval: Seconds = Seconds(5)
    timeout: Seconds = Seconds(5)
    critical_xids: tuple[int, ...] | None = None
    ignore_xids: tuple[int, ...] = ()
    xid_clear: Seconds = Seconds(300)
    max_uncorrected: int = 0
    on_unhealthy: Literal["keep", "requeue"] = "keep"
    foreign_gpus: bool = True
    ignore_processes: tuple[str, ...] = IGNORED_PROCESSES
    foreign_cpus: Literal["auto", "on", "off"] = "auto"
    foreign_cpu_interval: Seconds = Seconds(10)
    foreign_cpu_share: float = 0.25
    foreign_cpu_calm: Seconds = Seconds(60)


class LogsSection(Section, frozen=True, kw_only=True):
    """`[logs]`: how much of the jobs' output is kept."""

    max_bytes: Size = Size(LOG_BYTES)
    """Of one attempt: about the last so many."""
    keep_days: int = 90
    """Of attempts that are over; 0: for ever."""
    keep_bytes: Size = Size(10 << 30)
    """Of all attempts that are over, the oldest go first; 0: no bound."""


class HistorySection(Section, frozen=True, kw_only=True):
    """`[history]`: how long the database remembers jobs that ended, and events."""

    keep_days: int = 400
    """0: for ever."""


class JobPolicySection(Section, frozen=True, kw_only=True):
    """`[security.jobs]`: what a job may ask for; see `topod.model.policy.JobPolicy`."""

    images: tuple[str, ...] = ("*",)
    require_digest: bool = False
    mounts: tuple[str, ...] = ()
    mounts_read_only: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    users: tuple[str, ...] = ("*",)
    networks: tuple[Network, ...] = (Network.BRIDGE, Network.NONE)
    capabilities: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    ulimits: dict[str, int] | None = None
    max_gpus: int | None = None
    no_new_privileges: bool = True
    drop_capabilities: tuple[str, ...] = ()


class SecuritySection(Section, frozen=True, kw_only=True):
    """`[security]`: who may do what, and what a job may ask for. Groups by name; `*`: whoever gets in."""

    socket_group: str = "topod"
    socket_mode: str = "0660"
    view: tuple[str, ...] = ("*",)
    submit: tuple[str, ...] = ("*",)
    administer: tuple[str, ...] = ("topod-admin",)
    max_priority: dict[str, Level] = msgspec.field(default_factory=dict)
    jobs: JobPolicySection | None = None
    """None: a job may ask for anything."""


class MetricsSection(Section, frozen=True, kw_only=True):
    """`[metrics]`: where topod tells Prometheus of itself."""

    listen: str = ""
    """`[ADDR:]PORT`; empty: nowhere."""


class ConfigFile(Section, frozen=True, kw_only=True):
    """The whole configuration: one file, or several that were merged."""

    fairness: FairnessSection = FairnessSection()
    quota: tuple[QuotaSection, ...] = ()
    budget: tuple[BudgetSection, ...] = ()
    health: HealthSection = HealthSection()
    logs: LogsSection = LogsSection()
    history: HistorySection = HistorySection()
    security: SecuritySection = SecuritySection()
    metrics: MetricsSection = MetricsSection()
    fleet: FleetSection = FleetSection()
    coordinator: CoordinatorSection = CoordinatorSection()
    store: StoreSection = StoreSection()


def mistakes_in(config: ConfigFile, sections: Collection[str]) -> Iterator[str]:
    """Yield what cannot be meant in those sections, each as `place: what is wrong`."""
    for name, check in _CHECKS.items():
        if name in sections:
            yield from check(config)


def rules_of(config: ConfigFile) -> Rules:
    """Return the rules for the core, of a configuration without mistakes."""
    fairness = config.fairness
    return Rules(
        quotas=tuple(_quota(entry) for entry in config.quota),
        budgets=tuple(_budget(entry) for entry in config.budget),
        preemption_cap=fairness.preemption_cap,
        preemption_boost=fairness.preemption_boost,
        preemption_ceiling=int(fairness.preemption_ceiling),
        hold_after_seconds=float(fairness.hold_after),
        hold_step_seconds=float(fairness.hold_step),
        hold_below=int(fairness.hold_below),
    )


def health_rules_of(config: ConfigFile) -> HealthRules:
    """Return what the watches go by, of a configuration without mistakes."""
    health = config.health
    return HealthRules(
        critical_xids=CRITICAL if health.critical_xids is None else frozenset(health.critical_xids),
        ignore_xids=frozenset(health.ignore_xids),
        xid_clear_seconds=float(health.xid_clear),
        max_uncorrected=health.max_uncorrected,
        requeue=health.on_unhealthy == "requeue",
        foreign_gpus=health.foreign_gpus,
        ignore_processes=health.ignore_processes,
        foreign_cpu_share=health.foreign_cpu_share,
        cpu_calm_seconds=float(health.foreign_cpu_calm),
    )


def _check_fairness(config: ConfigFile) -> Iterator[str]:
    for name in ("preemption_cap", "preemption_boost"):
        if getattr(config.fairness, name) < 0:
            yield f"fairness.{name}: must be 0 or more"
    if config.fairness.hold_step <= 0:
        yield 'fairness.hold_step: must be above 0, such as "10m"; hold_after = 0 turns holds off'


def _check_quotas(config: ConfigFile) -> Iterator[str]:
    seen: dict[str, int] = {}
    for number, entry in enumerate(config.quota, start=1):
        place = f"quota {number}"
        found = [f"{place}: {text}" for text in _wrong_with_quota(entry)]
        yield from found or _said_again(seen, place, _of_whom(entry), number)


def _wrong_with_quota(entry: QuotaSection) -> Iterator[str]:
    if (entry.user is None) == (entry.label is None):
        yield "give either user or label"
    if entry.gpus < 0:
        yield "gpus must be 0 or more"
    if entry.user is not None and (not entry.user or entry.user != entry.user.strip()):
        yield f'no user is named {entry.user!r}: write user = "alice", or "*" for each'
    if entry.label is not None:
        yield from _wrong_with_label(entry.label)


def _check_budgets(config: ConfigFile) -> Iterator[str]:
    seen: dict[str, int] = {}
    for number, entry in enumerate(config.budget, start=1):
        place = f"budget {number}"
        found = [f"{place}: {text}" for text in _wrong_with_label(entry.label)]
        if entry.min_running < 0:
            found.append(f"{place}: min_running must be 0 or more")
        yield from found or _said_again(seen, place, _of_whom(entry), number)


def _said_again(seen: dict[str, int], place: str, of: str, number: int) -> Iterator[str]:
    """Say where two say something of the same users or jobs."""
    first = seen.setdefault(of, number)
    if first != number:
        yield f"{place}: {of} has one already, {place.split(maxsplit=1)[0]} {first}: keep one of them"


def _of_whom(entry: QuotaSection | BudgetSection) -> str:
    user = entry.user if isinstance(entry, QuotaSection) else None
    return f"user {user}" if user is not None else "label {}={}".format(*_label(entry.label or ""))


def _check_logs(config: ConfigFile) -> Iterator[str]:
    if config.logs.max_bytes < LEAST_LOG_BYTES:
        yield f"logs.max_bytes: must be at least 1M, not {config.logs.max_bytes} bytes"
    for name in ("keep_days", "keep_bytes"):
        if getattr(config.logs, name) < 0:
            yield f"logs.{name}: must be 0 or more"


def _check_history(config: ConfigFile) -> Iterator[str]:
    if config.history.keep_days < 0:
        yield "history.keep_days: must be 0 or more"


def _check_security(config: ConfigFile) -> Iterator[str]:
    section = config.security
    if not re.fullmatch(r"0?[0-7]{3}", section.socket_mode):
        yield f'security.socket_mode: written "0660", not {section.socket_mode!r}'
    if section.max_priority and EACH not in section.max_priority:
        yield 'security.max_priority: say what everybody else may give too: "*" = "normal"'
    if section.jobs is not None:
        yield from _check_policy(section.jobs)
        yield from _check_most(section.jobs)


def _check_policy(jobs: JobPolicySection) -> Iterator[str]:
    for name in ("mounts", "mounts_read_only", "secrets", "devices"):
        for path in getattr(jobs, name):
            if not path.startswith("/"):
                yield f"security.jobs.{name}: must start with /: {path!r}"
    if not jobs.networks:
        yield 'security.jobs.networks: a job needs one of them; for no network say "none"'
    for name in ("capabilities", "drop_capabilities"):
        for word in getattr(jobs, name):
            if not re.fullmatch(r"[A-Z_]+", word) or word.startswith("CAP_"):
                yield f'security.jobs.{name}: written "IPC_LOCK", not {word!r}'


def _check_most(jobs: JobPolicySection) -> Iterator[str]:
    if jobs.max_gpus is not None and jobs.max_gpus < 0:
        yield "security.jobs.max_gpus: must be 0 or more; for any number leave it out"
    for name, most in (jobs.ulimits or {}).items():
        if most < -1:
            yield f"security.jobs.ulimits.{name}: must be -1 (any) or more, not {most}"


def _check_health(config: ConfigFile) -> Iterator[str]:
    health = config.health
    for name in ("interval", "timeout", "foreign_cpu_interval"):
        if not getattr(health, name) >= SHORTEST_INTERVAL:
            yield f"health.{name}: must be at least {SHORTEST_INTERVAL:g} s"
    if not 0 < health.foreign_cpu_share < inf:
        yield "health.foreign_cpu_share: must be above 0; 0.25 is a quarter of one CPU"


_CHECKS: Final[Mapping[str, Callable[[ConfigFile], Iterable[str]]]] = {
    "fairness": _check_fairness,
    "quota": _check_quotas,
    "budget": _check_budgets,
    "health": _check_health,
    "logs": _check_logs,
    "history": _check_history,
    "security": _check_security,
    "metrics": lambda config: check_place("metrics.listen", config.metrics.listen),
    "fleet": lambda config: check_fleet(config.fleet),
    "coordinator": lambda config: check_coordinator(config.coordinator),
    "store": lambda config: check_store(config.store),
}


def _quota(entry: QuotaSection) -> Quota:
    if entry.user is not None:
        return Quota(scope=Scope.USER, value=entry.user, gpus=entry.gpus)
    key, value = _label(entry.label or "")
    return Quota(scope=Scope.LABEL, key=key, value=value, gpus=entry.gpus)


def _budget(entry: BudgetSection) -> DisruptionBudget:
    key, value = _label(entry.label)
    return DisruptionBudget(label=key, value=value, min_running=entry.min_running)


def _label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _wrong_with_label(text: str) -> Iterator[str]:
    key, value = _label(text)
    if not re.fullmatch(r"[^=\s\0]+", key) or not value.strip():
        yield f'label is written "KEY=VALUE", or "KEY=*" for each value by itself: {text!r}'


def from_plain(kind: type[Any], value: object) -> object:
    """Return a duration, size or priority from what TOML says, for msgspec. Raises `ValueError`."""
    if kind is Seconds:
        return Seconds(jobfields.duration(value))
    if kind is Size:
        return Size(jobfields.size(value))
    if kind is Level:
        return Level(jobfields.priority(value))
    raise NotImplementedError(f"no configuration form for {kind.__name__}")

"""The configuration file: TOML with sections of known keys; a wrong key or value is refused with its place.

`docs/reference/configuration.md` explains every key.
"""

import re
import tomllib
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from topod.errors import DataError, NotFoundError
from topod.health.rules import IGNORED_PROCESSES, HealthRules
from topod.health.xids import CRITICAL
from topod.model.job import Network
from topod.model.rules import EACH, DisruptionBudget, Quota, Rules, Scope
from topod.ports import LOG_BYTES
from topod.protocol import jobfields
from topod.shell.config_kinds import Level, Seconds, Section, Size
from topod.shell.config_words import in_words
from topod.shell.coordinator_config import CoordinatorSection, StoreSection, check_coordinator, check_store
from topod.shell.fleet_config import FleetSection, check_fleet
from topod.shell.metrics.port import check_place

SHORTEST_INTERVAL: Final = 0.1
DEFAULT_PATH: Final = Path("/etc/topod/topod.toml")
LEAST_LOG_BYTES: Final = 1 << 20
R = TypeVar("R", bound=Quota | DisruptionBudget)


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
    """The whole file."""

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


def read_config(path: Path | None) -> ConfigFile:
    """Return the configuration of `path`; None takes the default path where it exists, else the defaults.

    Raises `NotFoundError` for a named file that is not there, `DataError` for one that cannot be meant.
    """
    if path is None:
        if not DEFAULT_PATH.exists():
            return ConfigFile()
        path = DEFAULT_PATH
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"no such configuration file: {path}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text at byte {error.start}", source=str(path)) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", source=str(path)) from None
    return parse_config(text, str(path))


def parse_config(text: str, source: str) -> ConfigFile:
    """Return the configuration that a text describes. Raises `DataError`."""
    try:
        plain = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError too
        raise DataError(f"not TOML: {error}", source=source) from None
    try:
        config = msgspec.convert(plain, ConfigFile, dec_hook=_from_plain)
        rules_of(config)
        health_rules_of(config)
        _check_kept(config)
        _check_security(config.security)
        check_fleet(config.fleet)
        check_coordinator(config.coordinator)
        check_store(config.store)
        check_place("metrics.listen", config.metrics.listen)
    except msgspec.ValidationError as error:
        raise DataError(in_words(str(error), ConfigFile), source=source) from None
    except ValueError as error:
        raise DataError(str(error), source=source) from None
    return config


def rules_of(config: ConfigFile) -> Rules:
    """Return the rules for the core. Raises `ValueError` for values that cannot be meant."""
    fairness = config.fairness
    for name in ("preemption_cap", "preemption_boost"):
        if getattr(fairness, name) < 0:
            raise ValueError(f"fairness.{name}: must be 0 or more")
    if fairness.hold_step <= 0:
        raise ValueError('fairness.hold_step: must be above 0, such as "10m"; hold_after = 0 turns holds off')
    return Rules(
        quotas=_each_once(
            "quota", [_quota(number, entry) for number, entry in enumerate(config.quota, start=1)]
        ),
        budgets=_each_once(
            "budget", [_budget(number, entry) for number, entry in enumerate(config.budget, start=1)]
        ),
        preemption_cap=fairness.preemption_cap,
        preemption_boost=fairness.preemption_boost,
        preemption_ceiling=int(fairness.preemption_ceiling),
        hold_after_seconds=float(fairness.hold_after),
        hold_step_seconds=float(fairness.hold_step),
        hold_below=int(fairness.hold_below),
    )


def _check_kept(config: ConfigFile) -> None:
    if config.logs.max_bytes < LEAST_LOG_BYTES:
        raise ValueError(f"logs.max_bytes: must be at least 1M, not {config.logs.max_bytes} bytes")
    for place, value in (
        ("logs.keep_days", config.logs.keep_days),
        ("logs.keep_bytes", config.logs.keep_bytes),
        ("history.keep_days", config.history.keep_days),
    ):
        if value < 0:
            raise ValueError(f"{place}: must be 0 or more")


def _check_security(section: SecuritySection) -> None:
    if not re.fullmatch(r"0?[0-7]{3}", section.socket_mode):
        raise ValueError(f'security.socket_mode: written "0660", not {section.socket_mode!r}')
    if section.max_priority and EACH not in section.max_priority:
        raise ValueError('security.max_priority: say what everybody else may give too: "*" = "normal"')
    if section.jobs is not None:
        _check_policy(section.jobs)
        _check_most(section.jobs)


def _check_policy(jobs: JobPolicySection) -> None:
    for name in ("mounts", "mounts_read_only", "secrets", "devices"):
        for path in getattr(jobs, name):
            if not path.startswith("/"):
                raise ValueError(f"security.jobs.{name}: must start with /: {path!r}")
    if not jobs.networks:
        raise ValueError('security.jobs.networks: a job needs one of them; for no network say "none"')
    for name in ("capabilities", "drop_capabilities"):
        for word in getattr(jobs, name):
            if not re.fullmatch(r"[A-Z_]+", word) or word.startswith("CAP_"):
                raise ValueError(f'security.jobs.{name}: written "IPC_LOCK", not {word!r}')


def _check_most(jobs: JobPolicySection) -> None:
    if jobs.max_gpus is not None and jobs.max_gpus < 0:
        raise ValueError("security.jobs.max_gpus: must be 0 or more; for any number leave it out")
    for name, most in (jobs.ulimits or {}).items():
        if most < -1:
            raise ValueError(f"security.jobs.ulimits.{name}: must be -1 (any) or more, not {most}")


def health_rules_of(config: ConfigFile) -> HealthRules:
    """Return what the watches go by. Raises `ValueError` for values that cannot be meant."""
    health = config.health
    for name in ("interval", "timeout", "foreign_cpu_interval"):
        if not getattr(health, name) >= SHORTEST_INTERVAL:
            raise ValueError(f"health.{name}: must be at least {SHORTEST_INTERVAL:g} s")
    if not 0 < health.foreign_cpu_share < inf:
        raise ValueError("health.foreign_cpu_share: must be above 0; 0.25 is a quarter of one CPU")
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


def _quota(number: int, entry: QuotaSection) -> Quota:
    place = f"quota {number}"
    if (entry.user is None) == (entry.label is None):
        raise ValueError(f"{place}: give either user or label")
    if entry.gpus < 0:
        raise ValueError(f"{place}: gpus must be 0 or more")
    if entry.user is not None:
        if not entry.user or entry.user != entry.user.strip():
            raise ValueError(
                f'{place}: no user is named {entry.user!r}: write user = "alice", or "*" for each'
            )
        return Quota(scope=Scope.USER, value=entry.user, gpus=entry.gpus)
    key, value = _label(place, entry.label or "")
    return Quota(scope=Scope.LABEL, key=key, value=value, gpus=entry.gpus)


def _budget(number: int, entry: BudgetSection) -> DisruptionBudget:
    place = f"budget {number}"
    if entry.min_running < 0:
        raise ValueError(f"{place}: min_running must be 0 or more")
    key, value = _label(place, entry.label)
    return DisruptionBudget(label=key, value=value, min_running=entry.min_running)


def _label(place: str, text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not re.fullmatch(r"[^=\s\0]+", key) or not value.strip():
        raise ValueError(
            f'{place}: label is written "KEY=VALUE", or "KEY=*" for each value by itself: {text!r}'
        )
    return key, value


def _each_once(what: str, rules: Sequence[R]) -> tuple[R, ...]:
    """Return the rules. Raises `ValueError` where two say something of the same users or jobs."""
    seen: dict[str, int] = {}
    for number, rule in enumerate(rules, start=1):
        of = f"user {rule.value}" if isinstance(rule, Quota) and rule.scope is Scope.USER else _of_label(rule)
        first = seen.setdefault(of, number)
        if first != number:
            raise ValueError(f"{what} {number}: {of} has one already, {what} {first}: keep one of them")
    return tuple(rules)


def _of_label(rule: Quota | DisruptionBudget) -> str:
    return f"label {rule.key if isinstance(rule, Quota) else rule.label}={rule.value}"


def _from_plain(kind: type[Any], value: object) -> object:
    if kind is Seconds:
        return Seconds(jobfields.duration(value))
    if kind is Size:
        return Size(jobfields.size(value))
    if kind is Level:
        return Level(jobfields.priority(value))
    raise NotImplementedError(f"no configuration form for {kind.__name__}")

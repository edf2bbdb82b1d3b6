"""How quotas are counted: who holds how many GPUs of what a rule of the site leaves. One host or a fleet.

Of several rules for one user or one value of a label, those that name it win over those for each (`*`); of
equals the strictest counts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from topod.model.job import JobSpec
from topod.model.occupancy import Room
from topod.model.rules import EACH, Quota, Rules, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaUse:
    """What one user, or the jobs with one value of a label, hold of their quota."""

    scope: Scope
    key: str
    """The label; empty for users."""
    value: str
    gpus: int
    """GPUs held, or being reserved."""
    limit: int

    @property
    def who(self) -> str:
        """For sentences: `user alice`, `label team=vision`."""
        return f"user {self.value}" if self.scope is Scope.USER else f"label {self.key}={self.value}"


Account = tuple[Scope, str, str]


class Ledger:
    """The GPUs held against quotas, kept up to date while jobs are placed.

    A GPU counts until it is really given back: nobody's own job is stopped to get under a quota.
    """

    __slots__ = ("_held", "_keys", "_limits", "_rules")

    def __init__(self, rules: Rules) -> None:
        """Begin with nobody holding anything."""
        self._rules = rules
        self._keys = sorted({quota.key for quota in rules.quotas if quota.scope is Scope.LABEL})
        self._held: dict[Account, int] = {}
        self._limits: dict[Account, int | None] = {}

    def add(self, spec: JobSpec, gpus: int) -> None:
        """Count GPUs that a job was given."""
        for account in self._accounts(spec):
            self._held[account] = self._held.get(account, 0) + gpus

    def of(self, spec: JobSpec) -> Iterator[QuotaUse]:
        """Yield the quotas that bind a job."""
        for account in self._accounts(spec):
            if account not in self._limits:
                self._limits[account] = _limit(account, self._rules.quotas)
            limit = self._limits[account]
            if limit is not None:
                scope, key, value = account
                yield QuotaUse(
                    scope=scope, key=key, value=value, gpus=self._held.get(account, 0), limit=limit
                )

    def binding(self, specs: Iterable[JobSpec], user: str = "") -> tuple[QuotaUse, ...]:
        """Return the quotas that bind any of `specs` or `user`, and those that a rule names, users first."""
        found = {use for spec in specs for use in self.of(spec)}
        found |= set(self.of(JobSpec(name="", command=(), user=user))) if user else set()
        for quota in self._rules.quotas:
            if quota.value != EACH:
                labels = {quota.key: quota.value} if quota.scope is Scope.LABEL else {}
                user = quota.value if quota.scope is Scope.USER else ""
                named = JobSpec(name="", command=(), user=user, labels=labels)
                found |= {use for use in self.of(named) if use.value == quota.value}
        return tuple(sorted(found, key=lambda use: (use.scope is Scope.LABEL, use.key, use.value)))

    def room(self, spec: JobSpec) -> Room | None:
        """Return what the quotas leave to a job; None where none binds it."""
        if not self._rules.quotas:
            return None
        least = min(self.of(spec), key=lambda use: use.limit - use.gpus, default=None)
        if least is None:
            return None
        return Room(
            gpus=max(0, least.limit - least.gpus),
            reason=f"{_quota_of(least)}, {least.gpus} held",
        )

    def _accounts(self, spec: JobSpec) -> Iterator[Account]:
        yield (Scope.USER, "", spec.user)
        for key in self._keys:
            if key in spec.labels:
                yield (Scope.LABEL, key, spec.labels[key])


def _limit(account: Account, quotas: tuple[Quota, ...]) -> int | None:
    scope, key, value = account
    mine = [quota for quota in quotas if quota.scope is scope and quota.key == key]
    chosen = [quota for quota in mine if quota.value == value]
    chosen = chosen or [quota for quota in mine if quota.value == EACH]
    return min((quota.gpus for quota in chosen), default=None)


def over_quota(spec: JobSpec, rules: Rules, hosts: int = 1) -> str | None:
    """Return why the quotas can never be kept by a job, however little else is held; None if they can."""
    asked = spec.request.gpus * hosts
    for use in Ledger(rules).of(spec):
        if asked > use.limit:
            return f"{_quota_of(use)}, {asked} asked"
    return None


def _quota_of(use: QuotaUse) -> str:
    return f"the quota of {use.who} is {'1 GPU' if use.limit == 1 else f'{use.limit} GPUs'}"

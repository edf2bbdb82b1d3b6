"""Which CPUs something that topod did not start has for itself.

A process that may run on every CPU disturbs all jobs a little and none in particular. One that somebody bound
to a few CPUs, and that works there, is a neighbour to keep away from: these CPUs are not handed out.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from topod.health.rules import HealthRules
from topod.health.use import Who
from topod.model.cpuset import CpuSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One process that used CPU time since the last look."""

    who: Who
    cpus: CpuSet
    """The CPUs that its busy threads are bound to; all CPUs where they are bound to none."""
    used: float
    """CPUs that it used on average: 0.5 is half of one."""


@dataclass(slots=True)
class CpuWatch:
    """Remembers who was busy lately, so that a pause of a moment changes nothing."""

    rules: HealthRules
    pinnable: CpuSet
    """The CPUs that topod may give to jobs."""
    baseline: CpuSet
    """The CPUs that a process may use where nobody bound it."""
    _busy_at: dict[tuple[int, float], tuple[float, Load]] = field(default_factory=dict)

    def look(
        self, loads: Iterable[Load], own: Collection[int], alive: Collection[int], at: float
    ) -> tuple[tuple[str, str], ...]:
        """Return the CPUs in foreign use with who uses them: (`2-3`, `pid 4711 (python, alice)`) each.

        `own`: PIDs of topod and its jobs; `alive`: every PID there is; `at` in seconds, of any clock.
        """
        for load in loads:
            if load.used >= self.rules.foreign_cpu_share and self._is_bound(load.cpus):
                self._busy_at[load.who.pid, load.who.started_at] = (at, load)
        self._busy_at = {
            key: (then, load)
            for key, (then, load) in self._busy_at.items()
            if key[0] in alive and key[0] not in own and at - then <= self.rules.cpu_calm_seconds
        }
        found: dict[str, list[str]] = {}
        for _, (_, load) in sorted(self._busy_at.items()):
            cpus = str(load.cpus & self.pinnable)
            if cpus and not self.rules.ignores(load.who.name):
                found.setdefault(cpus, []).append(_named(load.who))
        return tuple((cpus, "; ".join(who)) for cpus, who in sorted(found.items()))

    def _is_bound(self, cpus: CpuSet) -> bool:
        """Say whether these are CPUs that somebody chose: at most half of them all.

        A wider set is a fence that keeps work off some CPUs, not a place that it was given.
        """
        return bool(cpus) and 2 * len(cpus & self.baseline) <= len(self.baseline)


def _named(who: Who) -> str:
    return f"pid {who.pid} ({who.words})" if who.words else f"pid {who.pid}"

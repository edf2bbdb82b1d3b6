"""What somebody would like to run: the choices of the What-if screen, and how keys change them. Pure."""

from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

from topoctl.render.jobs import priority_name
from topod.model.job import JobSpec
from topod.model.request import AUTO, PRIORITIES, Affinity, Policy, ResourceRequest

NO_IMAGE: Final = "none"
"""What `topoctl plan` names where nothing is to run yet."""
MOST_DIGITS: Final = 6
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The choices. `hosts`: of a fleet, on so many at a time."""

    gpus: int = 1
    affinity: Affinity = Affinity.ANY
    policy: Policy = Policy.GUARANTEED
    priority: int = PRIORITIES["normal"]
    cpus: int | Literal["auto"] = AUTO
    hosts: int = 1

    @property
    def request(self) -> ResourceRequest:
        """What is asked of a host."""
        return ResourceRequest(
            gpus=self.gpus,
            affinity=self.affinity,
            policy=self.policy,
            priority=self.priority,
            cpus=0 if self.cpus == AUTO and not self.gpus else self.cpus,
        )

    def spec(self) -> JobSpec:
        """Return the job that a plan is asked for: of this size, with nothing to run."""
        return JobSpec(name="what-if", command=(), image=NO_IMAGE, request=self.request)

    def fields(self) -> dict[str, str]:
        """Return the choices by their names in a job file."""
        return {
            "gpus": str(self.gpus),
            "affinity": self.affinity.value,
            "policy": self.policy.value,
            "priority": str(self.priority),
            "cpus": str(self.request.cpus),
        }


FIELDS: Final = ("gpus", "affinity", "policy", "priority", "cpus", "hosts")
TITLES: Final = {"gpus": "GPUs", "cpus": "CPUs"}


def shown(wish: Wish, name: str) -> str:
    """Return a choice as people read it."""
    return priority_name(wish.priority) if name == "priority" else str(getattr(wish, name))


def turned(wish: Wish, name: str, step: int, most_gpus: int) -> Wish:
    """Return the wish with one choice a step further (1) or back (-1); numbers stop at their ends."""
    match name:
        case "gpus":
            changed = replace(wish, gpus=min(max(0, wish.gpus + step), most_gpus))
        case "affinity":  # one further is one closer
            changed = replace(wish, affinity=_next(tuple(Affinity), wish.affinity, -step))
        case "policy":
            changed = replace(wish, policy=_next(tuple(Policy), wish.policy, step))
        case "priority":
            changed = replace(wish, priority=_next_priority(wish.priority, step))
        case "cpus":
            changed = replace(wish, cpus=_next_cpus(wish.cpus, step))
        case _:
            changed = replace(wish, hosts=max(1, wish.hosts + step))
    return changed


def typed(wish: Wish, name: str, digit: str, *, more: bool, most_gpus: int) -> Wish:
    """Return the wish with a digit typed; `more`: behind those that were typed before."""
    old = getattr(wish, name)
    if not isinstance(old, int) and name != "cpus":
        return wish
    number = int((f"{old}{digit}" if more and isinstance(old, int) else digit)[:MOST_DIGITS])
    match name:
        case "gpus":
            return replace(wish, gpus=min(number, most_gpus))
        case "priority":
            return replace(wish, priority=number)
        case "cpus":
            return replace(wish, cpus=number)
        case _:
            return replace(wish, hosts=max(1, number))


def in_words(wish: Wish) -> str:
    """Return the wish in a few words: `4 GPUs, nvlink (guaranteed), priority high`."""
    count = f"{wish.gpus} GPU{'' if wish.gpus == 1 else 's'}"
    if wish.hosts > 1:
        count = f"{wish.hosts} x {count}"
    words = [count, f"{wish.affinity} ({wish.policy})", f"priority {priority_name(wish.priority)}"]
    if wish.cpus != AUTO:
        words.append(f"{wish.cpus} CPUs")
    return ", ".join(words)


def _next(values: tuple[T, ...], now: T, step: int) -> T:
    at = values.index(now) + step
    return values[min(max(0, at), len(values) - 1)]


def _next_priority(now: int, step: int) -> int:
    """Return the next priority that has a name."""
    ahead = [one for one in PRIORITIES.values() if (one - now) * step > 0]
    return (min if step > 0 else max)(ahead, default=now)


def _next_cpus(now: int | Literal["auto"], step: int) -> int | Literal["auto"]:
    """Return the number after or before; `auto` comes before 0."""
    if now == AUTO:
        return 0 if step > 0 else AUTO
    return now + step if now + step >= 0 else AUTO

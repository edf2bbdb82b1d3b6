"""The scenario: which hosts, how full, and what is asked of them. Pure but for reading the file."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from topod.errors import DataError, NotFoundError
from topod.model.request import Affinity

Count = Annotated[int, msgspec.Meta(ge=1)]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some hosts of one kind, and the request that comes when they are full."""

    name: str
    host: str
    hosts: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    free: list[Annotated[int, msgspec.Meta(ge=0)]]
    sizes: list[Count]
    weights: list[Annotated[float, msgspec.Meta(gt=0)]]
    gpus: Count
    affinity: Affinity

    def __post_init__(self) -> None:
        if not self.free or not self.sizes or len(self.sizes) != len(self.weights):
            raise ValueError(f"part {self.name}: wants `free`, and as many `weights` as `sizes`")
        if max(self.free) >= self.gpus:
            raise ValueError(f"part {self.name}: `free` must be less than `gpus`, or nobody is preempted")

    @property
    def host_names(self) -> tuple[str, ...]:
        return tuple(f"h{number}" for number in range(1, self.hosts + 1))


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is lived through."""

    seed: int
    states: Count
    submits: Count
    parts: Annotated[list[Part], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class Filler:
    """One job that fills a host: it holds just these GPUs (a mask)."""

    name: str
    host: str
    gpus: int


@dataclass(frozen=True, slots=True)
class State:
    """How full the hosts are; in which order `fillers` start, `waves` says."""

    name: str
    fillers: tuple[Filler, ...]
    free: dict[str, int]
    """By host, as a mask."""


def read_scenario(path: Path) -> Scenario:
    """Return the scenario of a file. Raises `NotFoundError` and `DataError`."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Scenario)
    except FileNotFoundError as error:
        raise NotFoundError(f"no such file: {path}") from error
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise DataError(str(error), source=str(path)) from error


def states_of(scenario: Scenario, part: Part, gpus: int) -> list[State]:
    """Return the states of a part on hosts of so many GPUs; the same for the same seed."""
    at = scenario.parts.index(part)
    rng = random.Random(f"{scenario.seed} {at}")
    return [_state(rng, part, gpus, f"p{at}s{number}") for number in range(scenario.states)]


def waves(state: State) -> list[list[Filler]]:
    """Return who starts when: of each host the first filler, then of each the second, and so on."""
    of_hosts = [[filler for filler in state.fillers if filler.host == host] for host in state.free]
    found = []
    for number in range(max(map(len, of_hosts))):
        wave = [fillers[number] for fillers in of_hosts if len(fillers) > number]
        found.append(sorted(wave, key=state.fillers.index))
    return found


def _state(rng: random.Random, part: Part, gpus: int, name: str) -> State:
    fillers: list[Filler] = []
    free: dict[str, int] = {}
    for host in part.host_names:
        order = list(range(gpus))
        rng.shuffle(order)
        idle = rng.choice(part.free)
        free[host], left = _mask(order[:idle]), order[idle:]
        while left:
            size = min(rng.choices(part.sizes, part.weights)[0], len(left))
            fillers.append(Filler(f"{name}-{host}-{len(left)}", host, _mask(left[:size])))
            left = left[size:]
    rng.shuffle(fillers)
    return State(name, tuple(fillers), free)


def _mask(gpus: list[int]) -> int:
    return sum(1 << gpu for gpu in gpus)

"""What the simulation asks of a way to choose."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from topod.model.request import ResourceRequest
from topod.simulate.machines import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a job goes. GPUs and CPUs as masks, victims by job."""

    machine: Machine
    gpus: int
    cpus: int
    victims: tuple[int, ...] = ()


class Policy(Protocol):
    """A way to choose. Deterministic: what seems random in a scheduler comes from a seed."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def look(self, machines: Sequence[Machine], now: float) -> None:
        """Take in how the hosts stand now: what a scheduler's cache does beforehand, not part of a search."""
        ...

    def place(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return where a job fits without stopping anybody; None: nowhere."""
        ...

    def preempt(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return where it fits when others are stopped, and who; None: nowhere, or it is not tried."""
        ...


class Uncached:
    """Base of those that look at the hosts themselves whenever they are asked."""

    def look(self, machines: Sequence[Machine], now: float) -> None:
        """Do nothing."""

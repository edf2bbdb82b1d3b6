"""Which hosts of a fleet a job may run on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from topod.model.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """A filter over hosts: every part that is given must hold."""

    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Labels that a host must have, with these values."""
    gpu_model: str = ""
    """A pattern that the model of all its GPUs must match, in any case: `*h100*`. Empty: any host."""
    hosts: frozenset[str] | None = None
    """The only hosts that will do; None: any."""

    def takes_kind(self, topology: Topology) -> bool:
        """Say whether hosts of this hardware will do; one without GPUs has no model."""
        if not self.gpu_model:
            return True
        pattern = self.gpu_model.lower()
        return bool(topology.gpus) and all(fnmatchcase(gpu.name.lower(), pattern) for gpu in topology.gpus)

    def takes_host(self, host: str, labels: Mapping[str, str]) -> bool:
        """Say whether a host of that name and with these labels will do."""
        if self.hosts is not None and host not in self.hosts:
            return False
        return all(labels.get(key) == value for key, value in self.labels.items())

    def why_not(self, host: str, labels: Mapping[str, str], *, kind: bool) -> str:
        """Return in words why a host will not do; empty: it will. `kind`: what `takes_kind` says of it."""
        if self.hosts is not None and host not in self.hosts:
            return "not among the hosts named"
        lacks = [f"{key}={value}" for key, value in self.labels.items() if labels.get(key) != value]
        reasons = [f"without the label {', '.join(lacks)}"] if lacks else []
        if not kind:
            reasons.append(f"GPU model is not {self.gpu_model}")
        return " and ".join(reasons)


EVERYWHERE = Selector()

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


EVERYWHERE = Selector()

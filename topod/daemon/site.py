"""The hardware that this topod schedules: an emulated host, or this machine.

What a real host had when topod last started is remembered. A GPU that is missing now, or an NVML that does
not answer, must not cost the rest of the host, nor the jobs that run: the host is then taken as it was.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from topod.adapters.emulated_faults import FaultsFile
from topod.adapters.gpu_check import EmulatedProbe, NvmlGpuProbe
from topod.adapters.host_discovery import discover_host
from topod.adapters.nvml_probe import NvmlProbe
from topod.daemon.config import Settings
from topod.daemon.machine import online_cpus
from topod.discovery.discover import Discovery
from topod.discovery.document import dump_host, load_host
from topod.discovery.library import load_library_host
from topod.errors import DataError, ProbeError, UsageError
from topod.health.probe import HealthProbe
from topod.model.topology import Topology
from topod.ports import GpuProbe
from topod.shell.config_file import health_rules_of
from topod.shell.logs import Key

FACT: Final = "topology"
"""Under what name the store remembers the host document of this machine."""
FORGET: Final = "topod --rediscover takes the host as it is now"

log = logging.getLogger(__name__)


class SiteProbe(GpuProbe, HealthProbe, Protocol):
    """Says whether GPUs are free, and how they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The hardware that this topod schedules."""

    topology: Topology
    probe: SiteProbe
    notes: tuple[str, ...] = ()


def find_site(settings: Settings, remembered: Mapping[str, str]) -> Site:
    """Return the emulated host that was asked for, else this machine; `remembered`: the facts of the store.

    Raises `NotFoundError` and `DataError` for a wrong `--host`, `ProbeError` when this machine has no GPU to
    schedule that could be found, and had none before.
    """
    ignores = health_rules_of(settings.file).ignores
    if settings.host is not None:
        document = load_library_host(settings.host)
        # A host read from a file is not the machine we run on, whatever the file says.
        topology = replace(document.topology, emulated=True)
        faults = FaultsFile(settings.emulated_faults, topology)
        notes = (*_emulation_notes(topology), *_missing(settings.emulated_faults))
        return Site(topology=topology, probe=EmulatedProbe(faults, ignores), notes=notes)
    if settings.emulated_faults is not None:
        raise UsageError("--emulated-faults needs --host: a real host has faults of its own")
    nvml = NvmlProbe()
    found = discover_host(nvml=nvml)
    for problem in found.problems:
        log.warning("discovery.hampered", extra={Key.ERROR: problem})
    for note in found.notes:
        log.info("discovery.noted", extra={Key.TEXT: note})
    topology, notes = as_before(found, None if settings.rediscover else _known(remembered))
    if not topology.gpus:
        nvml.close()
        why = f": {found.problems[0]}" if found.problems else ""
        raise ProbeError(
            f"no GPU was found on this machine{why}",
            hint="look with `topoctl doctor`, or emulate a host: topod --host dgx1",
        )
    return Site(
        topology=topology,
        probe=NvmlGpuProbe(nvml, float(settings.file.health.timeout), ignores),
        notes=(*found.problems, *notes),
    )


def to_remember(site: Site) -> dict[str, str]:
    """Return the facts of a site that the next start should know."""
    return {} if site.topology.emulated else {FACT: dump_host(site.topology).decode()}


def as_before(found: Discovery, known: Topology | None) -> tuple[Topology, tuple[str, ...]]:
    """Return the topology to go by, and sentences on what was taken from before.

    Without NVML, and where GPUs are missing and none is new, it is the `known` one: whoever is not seen is
    found to be lost by the watch of the GPUs. Cards that were exchanged make a new host.
    """
    if known is None or not known.gpus:
        return found.topology, ()
    if any(problem.startswith("NVML") for problem in found.problems):
        return known, (f"the host is taken as it was before, since NVML cannot be asked; {FORGET}",)
    here = {gpu.uuid for gpu in found.topology.gpus}
    missing = [gpu for gpu in known.gpus if gpu.uuid not in here]
    if not missing:
        return found.topology, ()
    names = ", ".join(f"GPU{gpu.index} ({gpu.uuid})" for gpu in missing)
    if here - {gpu.uuid for gpu in known.gpus}:
        return found.topology, (f"GPUs were exchanged: {names} of before are gone",)
    return known, (f"missing, though it was there before: {names}; {FORGET}",)


def _known(remembered: Mapping[str, str]) -> Topology | None:
    text = remembered.get(FACT)
    if text is None:
        return None
    try:
        return load_host(text.encode(), "the host as it was before").topology
    except DataError as error:
        log.warning("discovery.hampered", extra={Key.ERROR: error.message})
        return None


def _missing(faults: Path | None) -> tuple[str, ...]:
    if faults is None or faults.exists():
        return ()
    return (f"{faults} was not there when topod started: no fault is emulated until it is",)


def _emulation_notes(topology: Topology) -> tuple[str, ...]:
    notes = [f"the host is emulated: no job gets one of its {len(topology.gpus)} GPUs"]
    real = online_cpus()
    if topology.cpus - real:
        notes.append(f"CPUs beyond this machine's {real} are only recorded")
    return tuple(notes)

"""Emulated hosts as a screen knows them, with jobs put on by hand."""

from collections.abc import Sequence
from dataclasses import replace

from topod.discovery.library import load_library_host
from topod.model.topology import Topology
from topod.protocol.views import GpuReading, GpuView, JobLine
from topotui.picture import Picture

GIB = 1 << 30


def picture_of(host: str | Topology) -> Picture:
    """Return a host of the library, or one that is given, as a screen knows it: all free."""
    picture = Picture()
    topology = load_library_host(host).topology if isinstance(host, str) else host
    picture.topology = topology
    for gpu in topology.gpus:
        picture.gpus[gpu.index] = GpuView(
            index=gpu.index, uuid=gpu.uuid, name=gpu.name, numa_node=gpu.numa_node, state="free"
        )
    return picture


def without_gpus(host: str) -> Topology:
    """Return a host of the library whose GPUs were taken out."""
    topology = load_library_host(host).topology
    return replace(topology, gpus=(), links=(), nic_links=(), nics=())


def hold(
    picture: Picture, job: int, name: str, gpus: Sequence[int], *, priority: int = 500, cpus: str = ""
) -> None:
    """Let a job run on some GPUs and CPUs."""
    for index in gpus:
        old = picture.gpus[index]
        picture.gpus[index] = GpuView(
            index=index,
            uuid=old.uuid,
            name=old.name,
            numa_node=old.numa_node,
            state="held",
            job=job,
            ident=str(job),
            priority=priority,
        )
    picture.jobs[job] = JobLine(
        id=job,
        name=name,
        user="u",
        state="running",
        priority=priority,
        gpus=len(gpus),
        affinity="any",
        policy="guaranteed",
        cpus=0,
        cpu_affinity="numa",
        gpu_indices=[*gpus],
        cpu_list=cpus,
        submitted_at=0.0,
    )


def reading(index: int, percent: int, used_gib: int, degrees: int, **more: str) -> GpuReading:
    """Return what a GPU measures."""
    return GpuReading(
        index=index,
        memory_bytes=80 * GIB,
        memory_used_bytes=used_gib * GIB,
        utilisation_percent=percent,
        temperature_celsius=degrees,
        **more,
    )

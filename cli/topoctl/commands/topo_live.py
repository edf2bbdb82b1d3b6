"""The part of `topoctl topo` that shows the live host, or an emulated one of the library."""

import json
import time
from pathlib import Path
from typing import Final

import msgspec
import typer

from topoctl.render.hostmap import HostMap, host_map, pinned, views
from topoctl.render.style import Style
from topoctl.session import ask, connect
from topod.discovery.document import HostDocument, dump_host, load_host
from topod.discovery.library import host_names, load_library_host
from topod.errors import DataError, TopodError
from topod.model.cpuset import CpuSet
from topod.protocol.codec import ProtocolError
from topod.protocol.replies import Host, Welcome
from topod.protocol.requests import GetHost, Hello
from topod.protocol.units import format_duration
from topod.protocol.views import GpuView, HostView

IDLE_SECONDS: Final = 600.0
"""Shorter pauses are no news: data is loaded, a model is evaluated on the CPUs."""


def is_of_the_fleet(ctx: typer.Context, name: str) -> bool:
    """Whether a name is no emulated host's and no file's, and a fleet is asked that may have such a host."""
    if name in host_names() or Path(name).is_file():
        return False
    try:
        with connect(ctx) as client:
            return ask(client, Hello(), Welcome).fleet
    except TopodError:
        return False


def live_host(ctx: typer.Context, host: str = "") -> tuple[HostView, HostDocument]:
    """Ask topod, or a `host` of the fleet; raises `ProtocolError` when its document cannot be read."""
    with connect(ctx, host) as client:
        view = ask(client, GetHost(), Host).host
    try:
        return view, load_host(json.dumps(view.document).encode(), "topod's host document")
    except DataError as error:
        raise ProtocolError(error.message) from error


def live_text(view: HostView, document: HostDocument, style: Style) -> str:
    """Return the map of the live host."""
    kind = f"{'emulated, ' if view.emulated else ''}{view.runtime}"
    drained = [] if view.drain is None else [f"drained: {view.drain}"]
    foreign = sorted(view.foreign_cpus.items())
    host = HostMap(
        topology=document.topology,
        gpus=view.gpus,
        pinned=pinned(document.occupancy),
        subtitle=kind,
        notes=[
            *drained,
            *(f"CPUs {cpus} foreign: {who}" for cpus, who in foreign),
            *idle_notes(view, time.time()),
            *view.notes,
        ],
    )
    return host_map(host, style)


def idle_notes(view: HostView, now: float) -> list[str]:
    """Say which jobs have held GPUs without using them for long."""
    idle: dict[str, list[GpuView]] = {}
    for gpu in view.gpus:
        if gpu.job is not None and gpu.idle_since is not None and now - gpu.idle_since >= IDLE_SECONDS:
            idle.setdefault(gpu.ident or str(gpu.job), []).append(gpu)
    notes = []
    for job, gpus in idle.items():
        names = f"{'GPU' if len(gpus) == 1 else 'GPUs'} {CpuSet.of(gpu.index for gpu in gpus)}"
        seconds = now - max(gpu.idle_since or now for gpu in gpus)
        notes.append(f"job {job} has not used {names} for {format_duration(seconds)}")
    return notes


def live_json(view: HostView) -> bytes:
    """Return the host document of the live host, as topod gave it, indented."""
    return msgspec.json.format(msgspec.json.encode(view.document), indent=2) + b"\n"


def library_host(name: str) -> HostDocument:
    """Return an emulated host by name, or the host in a file."""
    return load_library_host(name)


def document_text(document: HostDocument, style: Style) -> str:
    """Return the map of a host from the library or a file, with its state where it says so."""
    topology, occupancy = document.topology, document.occupancy
    subtitle = "emulated" if topology.emulated else ""
    host = HostMap(
        topology=topology, gpus=views(topology, occupancy), pinned=pinned(occupancy), subtitle=subtitle
    )
    return host_map(host, style)


def document_json(document: HostDocument) -> bytes:
    """Return the host document, indented."""
    return msgspec.json.format(dump_host(document.topology, document.occupancy), indent=2) + b"\n"

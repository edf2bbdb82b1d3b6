"""`topoctl topo`: the map of a host."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from topod.errors import UsageError

EXAMPLES = """
topoctl topo
topoctl topo -o json > host.json
topoctl topo --host dgx1
topoctl topo --host node-a
nvidia-smi topo -m > host.txt
topoctl topo --from host.txt
topoctl topo --from host.txt -o json > host.json
"""


class TopoFormat(StrEnum):
    """How the host is printed."""

    TABLE = "table"
    JSON = "json"
    GRAPH = "graph"


def topo(
    ctx: typer.Context,
    *,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Read the host from a capture of `nvidia-smi topo -m` or a host document; - is stdin.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Show an emulated host, `list` names them all; or a host of the fleet.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        TopoFormat,
        typer.Option("-o", "--output", help="json is the host document, graph its nodes and edges."),
    ] = TopoFormat.TABLE,
) -> None:
    """Show the map of this host: GPUs, CPUs, links, holders.

    --from and --host show another host, and ask no daemon; but for --host with the name of a host of the
    fleet that is asked, which answers itself.
    """
    if source is not None and host is not None:
        raise UsageError("--from and --host cannot be combined")
    if source is not None:
        typer.echo(_render(source, output), nl=False)
    elif host == "list":
        from topod.discovery.library import host_names

        typer.echo("\n".join(host_names()))
    else:
        typer.echo(_map(ctx, host, output), nl=False)


def _map(ctx: typer.Context, host: str | None, output: TopoFormat) -> bytes | str:
    """Return the live host, the emulated one called `host`, or the host of the fleet."""
    from topoctl.commands import topo_live
    from topoctl.session import encodable, style

    view = None
    if host is None or topo_live.is_of_the_fleet(ctx, host):
        view, document = topo_live.live_host(ctx, host or "")
    else:
        document = topo_live.library_host(host)
    match output:
        case TopoFormat.JSON:
            return topo_live.document_json(document) if view is None else topo_live.live_json(view)
        case TopoFormat.GRAPH:
            from topoctl.render.graph import graph_json

            return graph_json(document.topology) + b"\n"
        case TopoFormat.TABLE:
            look = style(ctx)
            if view is None:
                return encodable(topo_live.document_text(document, look))
            return encodable(topo_live.live_text(view, document, look))


def _render(source: Path, output: TopoFormat) -> bytes | str:
    from topod.discovery.document import dump_host
    from topod.discovery.load import read_host

    host = read_host(source)
    match output:
        case TopoFormat.JSON:
            return dump_host(host.topology, host.occupancy) + b"\n"
        case TopoFormat.GRAPH:
            from topoctl.render.graph import graph_json

            return graph_json(host.topology) + b"\n"
        case TopoFormat.TABLE:
            from topoctl.render.host import host_table

            return host_table(host.topology, host.occupancy)

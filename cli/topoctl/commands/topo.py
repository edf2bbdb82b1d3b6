"""`topoctl topo`: the map of a host."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
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
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Read the host from a capture of `nvidia-smi topo -m` or a host document; - is stdin.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        TopoFormat,
        typer.Option("-o", "--output", help="json is the host document, graph its nodes and edges."),
    ] = TopoFormat.TABLE,
) -> None:
    """Show GPUs, their links, NUMA nodes and CPUs."""
    from topod.errors import UsageError  # noqa: PLC0415 - imported when the command runs

    if source is None:
        raise UsageError(
            "topo needs --from FILE", hint="nvidia-smi topo -m > host.txt; topoctl topo --from host.txt"
        )
    typer.echo(_render(source, output), nl=False)


def _render(source: Path, output: TopoFormat) -> bytes | str:
    from topod.discovery.document import dump_host  # noqa: PLC0415 - imported when the command runs
    from topod.discovery.load import read_host  # noqa: PLC0415

    host = read_host(source)
    match output:
        case TopoFormat.JSON:
            return dump_host(host.topology, host.occupancy) + b"\n"
        case TopoFormat.GRAPH:
            from topoctl.render.graph import graph_json  # noqa: PLC0415

            return graph_json(host.topology) + b"\n"
        case TopoFormat.TABLE:
            from topoctl.render.host import host_table  # noqa: PLC0415

            return host_table(host.topology, host.occupancy)

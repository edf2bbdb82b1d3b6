"""`topoctl hosts`: the hosts of a fleet."""

import time
from typing import Annotated

import typer

from topoctl.render.hosts import counts_line, hosts_table, port_line
from topoctl.session import Output, OutputOption, ask, connect, note, show, show_json, style
from topod.errors import UsageError
from topod.protocol.replies import Counts, Hosts
from topod.protocol.requests import GetCounts, GetHosts

EXAMPLES = """
topoctl hosts
topoctl hosts --select rack=7 -o wide
topoctl hosts -o json | jq '.[] | select(.state == "silent") | .name'
"""


def hosts(
    ctx: typer.Context,
    *,
    select: Annotated[
        list[str] | None,
        typer.Option(
            "--select", metavar="K=V", help="Only hosts with this label. Repeatable.", show_default=False
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the hosts of a fleet: one line each.

    FREE shows the GPUs that nobody holds, of how many. HEARD is when its last report came.
    """
    wanted = [_label(text) for text in select or []]
    with connect(ctx) as client:
        found = ask(client, GetHosts(), Hosts).hosts
        counts = ask(client, GetCounts(), Counts)
    found = [host for host in found if all(host.labels.get(name) == value for name, value in wanted)]
    match output:
        case Output.JSON:
            show_json(found)
        case Output.NAME:
            show("".join(f"{host.name}\n" for host in found))
        case _:
            show(hosts_table(found, time.time(), style(ctx), wide=output is Output.WIDE))
            if not found:
                note("no hosts with these labels" if wanted else "no host has joined the fleet")
            elif not wanted:
                for line in filter(None, (counts_line(counts), port_line(counts))):
                    note(line)
            if any(host.emulated for host in found):
                note("note: some hosts are emulated: their GPUs are bookkeeping")


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--select is written KEY=VALUE, not {text!r}")
    return name, value

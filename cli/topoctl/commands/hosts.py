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
topoctl hosts --counts -o json | jq .port
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
    counts: Annotated[
        bool, typer.Option("--counts", help="No list, only what is counted of the fleet and of the port.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the hosts of a fleet: one line each.

    FREE shows the GPUs that nobody holds, of how many. HEARD is when its last report came.
    """
    wanted = [_label(text) for text in select or []]
    if counts and (wanted or output is Output.NAME):
        raise UsageError("--counts is of the whole fleet, without names: leave out --select and -o name")
    with connect(ctx) as client:
        counted = ask(client, GetCounts(), Counts)
        if counts:
            if output is Output.JSON:
                show_json(counted)
            else:
                show("".join(f"{line}\n" for line in _lines(counted)))
            return
        found = ask(client, GetHosts(), Hosts).hosts
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
                for line in _lines(counted):
                    note(line)
            if any(host.emulated for host in found):
                note("note: some hosts are emulated: their GPUs are bookkeeping")


def _lines(counted: Counts) -> list[str]:
    return [line for line in (counts_line(counted), port_line(counted)) if line]


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--select is written KEY=VALUE, not {text!r}")
    return name, value

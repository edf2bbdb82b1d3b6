"""`topoctl history`: the jobs that have ended."""

import time
from typing import Annotated

import typer

from topoctl.render.jobs import history_table, ident
from topoctl.session import Output, OutputOption, ask, connect, note, show, show_json, style
from topod.protocol.replies import Jobs
from topod.protocol.requests import ListJobs

EXAMPLES = """
topoctl history
topoctl history -u alice -n 20
topoctl history -o json
"""


def history(
    ctx: typer.Context,
    *,
    user: Annotated[
        str | None, typer.Option("-u", "--user", help="Only jobs of this user.", show_default=False)
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, max=10_000, help="The last so many.")] = 100,
    output: OutputOption = Output.TABLE,
) -> None:
    """List jobs that have ended, the newest last."""
    with connect(ctx) as client:
        jobs = ask(client, ListJobs(ended=True, limit=number, user=user), Jobs).jobs
    match output:
        case Output.JSON:
            show_json(jobs)
        case Output.NAME:
            show("".join(f"{ident(job)}\n" for job in jobs))
        case _:
            show(history_table(jobs, time.time(), style(ctx), wide=output is Output.WIDE))
            if not jobs:
                note("no job has ended yet")

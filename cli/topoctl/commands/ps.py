"""`topoctl ps`: the jobs of this host."""

import time
from typing import Annotated

import typer

from topoctl.render.jobs import ENDED, ident, jobs_table
from topoctl.session import Output, OutputOption, ask, connect, note, show, show_json, style
from topod.errors import UsageError
from topod.protocol.client import Client
from topod.protocol.replies import JobLines, Jobs
from topod.protocol.requests import ListJobs
from topod.protocol.views import JobLine

EXAMPLES = """
topoctl ps
topoctl ps -a --user alice
topoctl ps --state pending -o wide
topoctl cancel $(topoctl ps --user $USER -o name)
"""
STATES = (
    "pending",
    "assigned",
    "starting",
    "running",
    "stopping",
    "preempted",
    "succeeded",
    "failed",
    "cancelled",
    "lost",
    "returned",
)


def ps(
    ctx: typer.Context,
    *,
    everything: Annotated[bool, typer.Option("-a", "--all", help="Also the last jobs that ended.")] = False,
    user: Annotated[
        str | None, typer.Option("-u", "--user", help="Only jobs of this user.", show_default=False)
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="Only jobs in this state; may be repeated.", show_default=False),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List jobs that wait or run; -a: ended ones too.

    GPUS shows the GPUs held (0-3), or how many a waiting job asks for (x4). TIME is how long a job has run,
    for a job that waits how long ago it was submitted. RST counts restarts.
    """
    states = [word for text in state or [] for word in text.lower().split(",")]
    for word in states:
        if word not in STATES:
            raise UsageError(f"--state: not a state: {word!r}", hint=f"states are {', '.join(STATES)}")
    with connect(ctx) as client:
        jobs, troubles = _listed(client, ListJobs(user=user, brief=output is not Output.JSON))
        if everything or ENDED.intersection(states):
            ended = ListJobs(ended=True, user=user, brief=output is not Output.JSON)
            jobs = [*_listed(client, ended)[0], *jobs]
    by_id = {job.id: job for job in jobs if not states or job.state in states}
    jobs = [by_id[key] for key in sorted(by_id)]
    match output:
        case Output.JSON:
            show_json(jobs)
        case Output.NAME:
            show("".join(f"{ident(job)}\n" for job in jobs))
        case _:
            show(jobs_table(jobs, time.time(), style(ctx), wide=output is Output.WIDE))
            if not jobs:
                note("no jobs" if everything or states or user else "no jobs; -a shows those that ended")
    for trouble in troubles:
        note(f"note: {trouble}")


def _listed(client: Client, request: ListJobs) -> tuple[list[JobLine], list[str]]:
    """Return the jobs, and what does not work for topod just now."""
    if request.brief:
        lines = ask(client, request, JobLines)
        return lines.jobs, lines.troubles
    full = ask(client, request, Jobs)
    return list(full.jobs), full.troubles

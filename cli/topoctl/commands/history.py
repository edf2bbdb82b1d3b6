"""`topoctl history`: the jobs that have ended."""

import time
from typing import Annotated

import typer

from topoctl.render.jobs import history_table, ident
from topoctl.render.usage import grouping, usage, usage_table
from topoctl.session import Output, OutputOption, ask, connect, note, show, show_json, style
from topod.errors import UsageError
from topod.protocol.client import Client
from topod.protocol.replies import Jobs
from topod.protocol.requests import ListJobs
from topod.protocol.units import parse_duration

EXAMPLES = """
topoctl history
topoctl history -u alice -n 20
topoctl history -o json
topoctl history --by user --since 7d
topoctl history --by label:team -o json
"""
MOST = 10_000
"""As many ended jobs as topod tells at once."""
ASK_SECONDS = 60.0


def history(
    ctx: typer.Context,
    *,
    user: Annotated[
        str | None, typer.Option("-u", "--user", help="Only jobs of this user.", show_default=False)
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, max=10_000, help="The last so many.")] = 100,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="WHAT", help="Sums instead, by user or label:KEY.", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only the last 7d, for example.", show_default=False),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List jobs that have ended, or with --by their sums.

    The sums hold GPU-hours, outcomes, preemptions and the median wait of the jobs that ended and of those
    that still run or wait. A job counts whole, with all its runs, where it ended.
    """
    after = time.time() - _seconds(since) if since is not None else 0.0
    with connect(ctx) as client:
        if by is not None:
            _sums(ctx, client, by, user=user, after=after, output=output)
            return
        jobs = ask(client, ListJobs(ended=True, limit=number, user=user), Jobs).jobs
    jobs = [job for job in jobs if (job.ended_at or 0.0) >= after]
    match output:
        case Output.JSON:
            show_json(jobs)
        case Output.NAME:
            show("".join(f"{ident(job)}\n" for job in jobs))
        case _:
            show(history_table(jobs, time.time(), style(ctx), wide=output is Output.WIDE))
            if not jobs:
                note("no job has ended yet" if since is None else f"no job has ended in the last {since}")


def _sums(
    ctx: typer.Context, client: Client, by: str, *, user: str | None, after: float, output: Output
) -> None:
    """Print what `--by` asks for."""
    if by != "user" and not (by.startswith("label:") and by != "label:"):
        raise UsageError(f"--by: must be user or label:KEY: {by!r}")
    request = ListJobs(ended=True, limit=MOST, user=user)
    ended = ask(client, request, Jobs, ASK_SECONDS).jobs
    if len(ended) == MOST:
        note(f"only the last {MOST} jobs are counted")
    going_on = ask(client, ListJobs(user=user), Jobs, ASK_SECONDS).jobs
    now = time.time()
    # Between the two questions a job may have ended.
    by_id = {job.id: job for job in (*going_on, *ended)}
    counted = (job for job in by_id.values() if job.ended_at is None or job.ended_at >= after)
    entries = usage(counted, grouping(by), now)
    match output:
        case Output.JSON:
            show_json(entries)
        case Output.NAME:
            show("".join(f"{entry['key']}\n" for entry in entries))
        case _:
            show(usage_table(entries, by.removeprefix("label:").upper(), style(ctx)))


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--since: {error}") from None

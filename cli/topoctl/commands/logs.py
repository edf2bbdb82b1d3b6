"""`topoctl logs`: what a job printed."""

import sys
from typing import Annotated

import msgspec
import typer

from topoctl.attached import tell_skipped
from topoctl.members import OnOption, RankOption, member_rank
from topoctl.render.jobs import ENDED
from topoctl.session import JobArgument, ask, ask_patiently, connect, job_ids, note, one_job
from topod.protocol.client import Client
from topod.protocol.replies import Jobs, LogChunk
from topod.protocol.requests import GetJob, ReadLog, WaitJob
from topod.protocol.views import JobView

EXAMPLES = """
topoctl logs 12
topoctl logs -f latest
topoctl logs -n 20 12
topoctl logs --attempt 1 12
topoctl logs --rank 1 12
"""
CHUNK = 256 * 1024
FOLLOW_SECONDS = 4.0
LAST_BYTES = 64 * 1024 * 1024
"""Lines further from the end than that are not looked for by `-n`."""


def logs(
    ctx: typer.Context,
    job: JobArgument,
    *,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the job has ended, also after a restart.")
    ] = False,
    tail: Annotated[
        int | None,
        typer.Option("-n", "--tail", min=0, help="Only the last so many lines.", show_default=False),
    ] = None,
    attempt: Annotated[
        int | None,
        typer.Option(
            "--attempt", min=1, help="Which start of the job (default: the last).", show_default=False
        ),
    ] = None,
    rank: RankOption = None,
    on: OnOption = "",
) -> None:
    """Print what a job wrote to stdout and stderr."""
    with connect(ctx) as client:
        (ident,) = job_ids(client, [job])
        view = one_job(ask(client, GetJob(job=ident), Jobs))
        if view.starts == 0 and attempt is None:
            note(f"job {ident} has not started: {view.reason or view.state}")
            if not follow or view.state in ENDED:
                return
            view = _next_start(client, ident, 0)
            if view.starts == 0:
                return
        member = member_rank(view, rank, on)
        while True:
            starts = view.starts
            which = _print(client, ident, attempt, tail, rank=member, follow=follow)
            view = one_job((ask_patiently if follow else ask)(client, GetJob(job=ident), Jobs, 10.0))
            if not follow or attempt is not None:
                return
            if view.starts == starts:
                view = _next_start(client, ident, starts)
            if view.starts == starts:
                return
            note(f"job {ident} started again (attempt {which} is over)")
            tail = None


def _print(
    client: Client, job: int, attempt: int | None, tail: int | None, *, rank: int | None, follow: bool
) -> int:
    """Print one attempt from its (tail's) beginning; return which one it was."""
    offset = 0 if tail is None else None
    while True:
        if offset is None:
            chunk = _last_lines(client, ReadLog(job=job, attempt=attempt, rank=rank), tail or 0)
        else:
            request = ReadLog(
                job=job,
                attempt=attempt,
                offset=offset,
                limit=CHUNK,
                wait=FOLLOW_SECONDS if follow else 0.0,
                rank=rank,
            )
            get = ask_patiently if follow else ask
            chunk = get(client, request, LogChunk, FOLLOW_SECONDS + 4)
        tell_skipped(job, chunk)
        sys.stdout.buffer.write(chunk.data)
        sys.stdout.buffer.flush()
        offset, attempt = chunk.next_offset, chunk.attempt
        if (chunk.ended or not follow) and (not chunk.data or chunk.ended):
            return chunk.attempt


def _last_lines(client: Client, which: ReadLog, lines: int) -> LogChunk:
    """Return the end of the output that holds the last `lines` lines."""
    size = 64 * 1024
    while True:
        chunk = ask(client, msgspec.structs.replace(which, offset=-size, limit=size), LogChunk)
        data = chunk.data
        while chunk.data and len(data) < size:  # one answer holds 1 MiB at most
            request = msgspec.structs.replace(
                which, attempt=chunk.attempt, offset=chunk.next_offset, limit=size - len(data)
            )
            chunk = ask(client, request, LogChunk)
            data += chunk.data
        found = data.splitlines(keepends=True)
        if len(found) > lines or len(data) < size or size >= LAST_BYTES:
            kept = b"".join(found[len(found) - lines :] if lines else [])
            return LogChunk(
                attempt=chunk.attempt,
                data=kept,
                next_offset=chunk.next_offset,
                ended=chunk.ended and not kept,
                gone=chunk.gone,
            )
        size *= 4


def _next_start(client: Client, job: int, starts: int) -> JobView:
    """Return the job once it has started again or ended."""
    while True:
        request = WaitJob(job=job, states=["running"], timeout=4.0)
        view = one_job(ask_patiently(client, request, Jobs, timeout=8.0))
        if view.starts > starts or view.state in ENDED:
            return view

"""Changing several jobs at a time: those that can be changed are, and the others are told.

Rule: as `kill` and `rm` do, so that one number that is old keeps no other job from being cancelled.
"""

from collections.abc import Callable, Sequence

import typer

from topoctl import exit_codes
from topoctl.render.jobs import label
from topoctl.session import TextOrJson, ask, connect, known_ids, note, show, show_json
from topod.errors import ConflictError, TopodError
from topod.protocol.replies import Jobs
from topod.protocol.requests import AnyRequest
from topod.protocol.views import JobView


def change(
    ctx: typer.Context,
    words: Sequence[str],
    request: Callable[[list[int]], AnyRequest],
    *,
    output: TextOrJson,
    done: Callable[[JobView], str],
    late: Callable[[JobView], str | None] | None = None,
    running: bool = False,
    single: Callable[[list[JobView]], bool] | None = None,
) -> int:
    """Change the jobs that words name, tell what was `done` and what was not, and return the exit status.

    `request` asks for it and is answered with the jobs; `late` says why one of them stays as it was. An array
    stands for those of its jobs that have not ended, or with `running` for those that run. JSON is a list, or
    one job where `single` says so.
    Raises `UsageError` for a word that can be no job; then nothing is done.
    """
    with connect(ctx) as client:
        idents, unknown = known_ids(client, words, whole=True, live=not running, running=running)
        told = list(dict.fromkeys(error.message for error in unknown))
        if not idents and len(told) == 1:
            raise unknown[0]
        for missing in told:
            note(missing)
        if not idents:
            return exit_codes.NOT_FOUND
        try:
            reply = ask(client, request(idents), Jobs)
        except TopodError as refused:
            if not unknown or refused.code != ConflictError.code:
                raise
            note(refused.message)
            return exit_codes.NOT_FOUND
    reasons = {job.id: late(job) if late else None for job in reply.jobs}
    if output is TextOrJson.JSON:
        show_json(reply.jobs[0] if single and single(reply.jobs) else reply.jobs)
    else:
        for job in reply.jobs:
            if reasons[job.id] is None:
                show(f"{done(job)}\n")
    refusals = [*reply.refused, *(reason for reason in reasons.values() if reason is not None)]
    for reason in refusals:
        note(reason)
    return exit_codes.NOT_FOUND if unknown else exit_codes.CONFLICT if refusals else exit_codes.OK


def has_ended(job: JobView) -> str:
    """Return that a job has ended, and how."""
    return f"{label(job)} has ended: {job.state}"

"""`topoctl wait`: until jobs have ended."""

import typer

from topoctl.session import JobsArgument, TextOrJson, TextOrJsonOption, ask, connect, job_ids, show, show_json
from topoctl.waiting import ending, exit_status, wait_until_ended
from topod.protocol.replies import Jobs
from topod.protocol.requests import GetJob

EXAMPLES = """
topoctl wait 12 && echo trained
topoctl wait 12 13 14
topoctl wait latest
"""


def wait(ctx: typer.Context, ids: JobsArgument, *, output: TextOrJsonOption = TextOrJson.TABLE) -> int:
    """Wait until jobs have ended; exit with their exit code.

    With several jobs: with that of the first in the list that did not succeed. A job that was stopped for
    another one and does not run again gives 75; one that was cancelled or lost gives 1.
    """
    ended = []
    with connect(ctx) as client:
        jobs = job_ids(client, ids, whole=True)
        for job in jobs:
            ask(client, GetJob(job=job), Jobs)  # a job that does not exist is told before waiting for others
        for job in jobs:
            ended.append(wait_until_ended(client, job))
            if output is TextOrJson.TABLE:
                show(ending(ended[-1]) + "\n")
    if output is TextOrJson.JSON:
        show_json(ended)
    return next((status for status in map(exit_status, ended) if status), 0)

"""`topoctl submit`: queue a job."""

import uuid
from typing import Annotated, Any

import typer

from topoctl.jobflags import job_spec, takes_job, user_name
from topoctl.render.plan import plan_text
from topoctl.session import (
    TextOrJson,
    TextOrJsonOption,
    ask,
    connect,
    note,
    one_job,
    show,
    show_json,
    style,
)
from topoctl.waiting import ending, exit_status, wait_until_ended
from topod.protocol.replies import Jobs, Planned
from topod.protocol.requests import DryRun, Submit

EXAMPLES = """
topoctl submit --gpus 4 --affinity nvlink --priority high \\
    --image pytorch/pytorch -v ./data:/data:ro -- python train.py
topoctl submit -f job.yaml --gpus 2
topoctl submit --wait --gpus 1 -- nvidia-smi -L
id=$(topoctl submit --parsable -f job.yaml)
"""


@takes_job
def submit(
    ctx: typer.Context,
    *,
    job: dict[str, Any],
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its end; exit with the job's own exit code.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would happen now; queue nothing.")
    ] = False,
    parsable: Annotated[bool, typer.Option("--parsable", help="Print only the job's id.")] = False,
    output: TextOrJsonOption = TextOrJson.TABLE,
) -> int | None:
    """Queue a job: a command, an image, or a job file.

    Everything from COMMAND on belongs to the job, as with `docker run`. Sizes are written 512m or 8G,
    times 90, 30s, 5m, 2h or 1-12:00:00.
    """
    spec = job_spec(job, user_name())
    with connect(ctx) as client:
        if dry_run:
            planned = ask(client, DryRun(spec=spec), Planned)
            if output is TextOrJson.JSON:
                show_json(planned)
            else:
                show(plan_text(planned, spec.request, style(ctx)))
            return None
        # The token makes asking twice safe; the first answer may be slow on a busy disk.
        reply = ask(client, Submit(spec=spec, token=uuid.uuid4().hex), Jobs, timeout=30)
        view = one_job(reply)
        if output is TextOrJson.JSON and not wait:
            show_json(view)
        elif output is TextOrJson.TABLE:
            show(f"{view.id}\n" if parsable else f"Submitted job {view.id} ({view.name})\n")
        if not wait:
            return None
        try:
            view = wait_until_ended(client, view.id)
        except KeyboardInterrupt:
            note(f"\njob {view.id} goes on; to stop it: topoctl cancel {view.id}")
            raise
    if output is TextOrJson.JSON:
        show_json(view)
    else:
        note(ending(view))
    return exit_status(view)

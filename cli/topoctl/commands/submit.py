"""`topoctl submit`: queue a job."""

import os
import uuid
from typing import Annotated, Any

import typer

from topoctl import exit_codes
from topoctl.jobflags import job_and_array, takes_job, user_name
from topoctl.render.jobs import ranges
from topoctl.render.plan import plan_text
from topoctl.session import (
    TextOrJson,
    TextOrJsonOption,
    ask,
    connect,
    note,
    show,
    show_json,
    style,
)
from topoctl.waiting import ending, exit_status, wait_until_ended
from topoctl.whereflags import GpuModelOption, HostsOption, SelectOption, where
from topod.errors import NotAllowedError
from topod.protocol.replies import Jobs, Planned
from topod.protocol.requests import DryRun, Submit
from topod.protocol.views import JobView

EXAMPLES = """
topoctl submit --gpus 4 --affinity nvlink --priority high \\
    --image pytorch/pytorch -v ./data:/data:ro -- python train.py
topoctl submit -f job.yaml --gpus 2
topoctl submit --wait --gpus 1 -- nvidia-smi -L
id=$(topoctl submit --parsable -f job.yaml)
topoctl submit --gpus 8 --select rack=7 --gpu-model "*h100*" -- ./train.sh
topoctl submit --hosts 2 --gpus 8 --network host -f job.yaml
topoctl submit --after $id --gpus 1 -- python evaluate.py
topoctl submit --array 0-9%2 --gpus 1 -- \\
    sh -c 'exec python fold.py --fold $TOPOD_ARRAY_INDEX'
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
    hosts: HostsOption = 1,
    select: SelectOption = None,
    gpu_model: GpuModelOption = "",
    parsable: Annotated[
        bool, typer.Option("-q", "--quiet", "--parsable", help="Print only the job's id.")
    ] = False,
    owner: Annotated[
        str | None,
        typer.Option("--for", metavar="USER", help="Root only: in the name of USER.", show_default=False),
    ] = None,
    output: TextOrJsonOption = TextOrJson.TABLE,
) -> int | None:
    """Queue a job: a command, an image, or a job file.

    Everything from COMMAND on belongs to the job, as with `docker run`. Sizes are written 512m or 8G,
    times 90, 30s, 5m, 2h or 1-12:00:00.
    """
    if owner is not None and os.geteuid() != 0:
        raise NotAllowedError("only root may submit in another's name (--for)")
    spec, array = job_and_array(job, owner or user_name())
    chosen = where(hosts, select, gpu_model)
    with connect(ctx) as client:
        if dry_run:
            planned = ask(client, DryRun(spec=spec, **chosen), Planned)
            if output is TextOrJson.JSON:
                show_json(planned)
            else:
                show(plan_text(planned, spec.request, style(ctx)))
            return exit_codes.ERROR if planned.never else None
        # The token makes asking twice safe; the first answer may be slow on a busy disk.
        request = Submit(spec=spec, array=array, token=uuid.uuid4().hex, **chosen)
        jobs = ask(client, request, Jobs, timeout=30).jobs
        first = jobs[0]
        if output is TextOrJson.JSON and not wait:
            show_json(first if array is None else jobs)
        elif output is TextOrJson.TABLE:
            show(f"{first.id}\n" if parsable else f"Submitted {_told(jobs)}\n")
        if not wait:
            return None
        try:
            jobs = [wait_until_ended(client, one.id) for one in jobs]
        except KeyboardInterrupt:
            note(f"\njob {first.id} goes on; to stop it: topoctl cancel {first.id}")
            raise
    if output is TextOrJson.JSON:
        show_json(jobs[0] if array is None else jobs)
    else:
        note("\n".join(map(ending, jobs)))
    return next((status for status in map(exit_status, jobs) if status), 0)


def _told(jobs: list[JobView]) -> str:
    first = jobs[0]
    if first.array_id is None:
        return f"job {first.id} ({first.name})"
    indices = ranges([job.array_index for job in jobs if job.array_index is not None])
    count = f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}"
    return f"array {first.id} ({first.name}): {count}, {first.id}[{indices}]"

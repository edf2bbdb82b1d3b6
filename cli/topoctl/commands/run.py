"""`topoctl run`: a job with this terminal attached."""

import uuid
from typing import Annotated, Any

import typer

from topoctl.attached import Attached, Interrupts, run_status
from topoctl.jobflags import job_and_array, takes_job, user_name
from topoctl.session import ask, ask_patiently, connect, note, one_job
from topoctl.waiting import ending
from topoctl.whereflags import GpuModelOption, HostsOption, SelectOption, where
from topod.errors import UsageError
from topod.protocol.replies import Jobs, Welcome
from topod.protocol.requests import Hello, Submit

EXAMPLES = """
topoctl run --gpus 1 --image pytorch/pytorch -- nvidia-smi -L
topoctl run --gpus 4 --affinity nvlink -f train.yaml && echo trained
topoctl run -q --gpus 1 -- python score.py > scores.txt
"""
SUBMIT_SECONDS = 30.0


@takes_job
def run(
    ctx: typer.Context,
    *,
    job: dict[str, Any],
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Only the job's output, nothing about the job.")
    ] = False,
    hosts: HostsOption = 1,
    select: SelectOption = None,
    gpu_model: GpuModelOption = "",
) -> int:
    """Run a job and stay attached: its output and its exit code.

    What the job prints goes to stdout, what happens to it to stderr. It reads nothing: its stdin is empty.
    Ctrl-C (or SIGTERM) cancels the job and waits for its end; a second one leaves it alone. A job that is
    stopped for another one and requeued stays attached, also while topod is restarted. Of a job over several
    hosts (--hosts) the output is that of rank 0.

    Exit code: the job's own; 75 when it was stopped for another one for good; as with `docker run` 125 when
    it could not be started, 126 and 127 when its command cannot be run or does not exist.
    """
    spec, array = job_and_array(job, user_name())
    if array is not None:
        raise UsageError("--array: an attached run is one job", hint="topoctl submit --wait --array ...")
    with connect(ctx) as client, Interrupts() as interrupts:
        ask(client, Hello(), Welcome)  # nobody there is told at once; later a restart is waited for
        # An interrupt waits for the answer: only then is it known what there is to cancel.
        submit = Submit(spec=spec, token=uuid.uuid4().hex, **where(hosts, select, gpu_model))
        view = one_job(ask_patiently(client, submit, Jobs, SUBMIT_SECONDS))
        attached = Attached(client, view, interrupts, quiet=quiet)
        try:
            if not quiet:
                note(f"topoctl: job {view.id} ({view.name}) submitted")
            interrupts.deliver()
            view = attached.follow()
        except KeyboardInterrupt:
            try:
                note(f"\ntopoctl: stopping job {view.id}; once more to leave it alone")
                attached.cancel(user_name())
                view = attached.follow()
            except KeyboardInterrupt:
                note(f"\ntopoctl: left job {view.id}; to go on: topoctl logs -f {view.id}")
                return 128 + interrupts.number
        except BrokenPipeError:
            note(f"topoctl: nobody reads the output; job {view.id} goes on")
            raise
    if not quiet or view.state == "lost" or (view.state == "failed" and view.exit_code is None):
        note(f"topoctl: {ending(view)}")
    return run_status(view, interrupts.number)

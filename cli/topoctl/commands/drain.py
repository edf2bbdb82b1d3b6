"""`topoctl drain` and `topoctl resume`: take the host or one GPU out of use, and back."""

from typing import Annotated

import typer

from topoctl.jobflags import user_name
from topoctl.render.jobs import label
from topoctl.session import ask, connect, show
from topod.errors import ConflictError, UsageError
from topod.protocol.client import Client, RemoteError
from topod.protocol.replies import Done, JobLines, Jobs
from topod.protocol.requests import Cancel, Drain, ListJobs, Requeue, Resume, WaitJob
from topod.protocol.views import JobLine

DRAIN_EXAMPLES = """
topoctl drain --reason "kernel update at 18:00"
topoctl drain --gpu 3 --reason "fan is loud"
topoctl drain --stop --reason "power is cut at 20:00"
"""
RESUME_EXAMPLES = """
topoctl resume
topoctl resume --gpu 3
"""
MAX_REASON = 200
RUNNING = "running"
HOLDING = ("starting", RUNNING, "stopping")
"""States in which a job holds its GPUs and CPUs."""
WAIT_SECONDS = 30.0
GpuOption = Annotated[
    str | None, typer.Option("--gpu", metavar="GPU", help="One GPU: its index or UUID.", show_default=False)
]


def drain(
    ctx: typer.Context,
    *,
    gpu: GpuOption = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; shown to whoever waits.", show_default=False)
    ],
    stop: Annotated[
        bool,
        typer.Option("--stop", help="Also stop what runs on the host, and wait until all of it has stopped."),
    ] = False,
) -> None:
    """Start no more jobs on this host or GPU.

    Jobs that run go on. With --stop they save, stop and go back into the queue, as with `topoctl requeue`;
    those that never run twice (--on-preempt cancel) are cancelled. Ctrl-C ends only the waiting.
    """
    if stop and gpu is not None:
        raise UsageError("--stop is for the whole host, not for one GPU", hint="topoctl requeue JOB")
    if not reason.strip():
        raise UsageError("--reason: is empty")
    if len(reason) > MAX_REASON:
        raise UsageError(f"--reason: {len(reason)} characters, at most {MAX_REASON}")
    what = "the host" if gpu is None else f"GPU {gpu}"
    with connect(ctx) as client:
        done = ask(client, Drain(gpu=gpu, reason=reason), Done)
        show(f"{done.text or f'Drained {what}: {reason}'}\n")
        if stop:
            _stop_all(client)


def _stop_all(client: Client) -> None:
    """Stop every job that holds something; return when none does."""
    told: set[int] = set()
    while held := [job for job in ask(client, ListJobs(brief=True), JobLines).jobs if job.state in HOLDING]:
        for job in held:
            if job.id not in told and job.state == RUNNING:
                told.add(job.id)
                _stop(client, job)
        # One that is starting comes to run, and is stopped then.
        first = held[0]
        states = [word for word in (*HOLDING, "pending") if word != first.state]
        ask(
            client, WaitJob(job=first.id, states=states, timeout=WAIT_SECONDS), Jobs, timeout=2 * WAIT_SECONDS
        )


def _stop(client: Client, job: JobLine) -> None:
    try:
        ask(client, Requeue(jobs=[job.id], by=user_name()), Jobs)
    except RemoteError as refused:
        if refused.code != ConflictError.code:
            raise
    else:
        show(f"Requeueing {label(job)}\n")
        return
    try:
        ask(client, Cancel(jobs=[job.id], by=user_name()), Jobs)
    except RemoteError as refused:  # it has ended of itself, or is being stopped
        if refused.code != ConflictError.code:
            raise
    else:
        show(f"Cancelling {label(job)}\n")


def resume(ctx: typer.Context, *, gpu: GpuOption = None) -> None:
    """Use the host or a GPU again.

    On a GPU this also ends its quarantine and forgets its Xids. What is still wrong with it, such as a
    memory row that waits for a reset, is set aside: shown, and no reason to keep it back any more. A GPU
    that is lost, in MIG mode, or used by something else stays kept back.
    """
    what = "the host" if gpu is None else f"GPU {gpu}"
    with connect(ctx) as client:
        done = ask(client, Resume(gpu=gpu), Done)
    show(f"{done.text or f'Resumed {what}'}\n")

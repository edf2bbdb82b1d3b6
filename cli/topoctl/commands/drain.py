"""`topoctl drain` and `topoctl resume`: take the host or one GPU out of use, and back."""

from typing import Annotated

import typer

from topoctl.session import ask, connect, show
from topod.errors import UsageError
from topod.protocol.replies import Done
from topod.protocol.requests import Drain, Resume

DRAIN_EXAMPLES = """
topoctl drain --reason "kernel update at 18:00"
topoctl drain --gpu 3 --reason "fan is loud"
"""
RESUME_EXAMPLES = """
topoctl resume
topoctl resume --gpu 3
"""
MAX_REASON = 200
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
) -> None:
    """Start no more jobs on this host or GPU.

    Jobs that run go on.
    """
    if not reason.strip():
        raise UsageError("--reason: is empty")
    if len(reason) > MAX_REASON:
        raise UsageError(f"--reason: {len(reason)} characters, at most {MAX_REASON}")
    what = "the host" if gpu is None else f"GPU {gpu}"
    with connect(ctx) as client:
        done = ask(client, Drain(gpu=gpu, reason=reason), Done)
    show(f"{done.text or f'Drained {what}: {reason}'}\n")


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

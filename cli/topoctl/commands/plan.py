"""`topoctl plan`: what would happen, without doing it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from topoctl.jobflags import takes_job
from topoctl.session import TextOrJson, TextOrJsonOption
from topoctl.whereflags import GpuModelOption, HostsOption, SelectOption, where
from topod.errors import DataError, NotFoundError, UsageError

EXAMPLES = """
topoctl plan --gpus 4 --affinity nvlink --priority high
topoctl plan -f job.yaml -o json
topoctl plan --hosts 2 --gpus 8 --gpu-model "*h100*"
topoctl plan --host dgx-a100 --gpus 2 --affinity numa
topoctl topo -o json > host.json; topoctl plan --host host.json --gpus 4
topoctl plan --batch questions.jsonl > answers.jsonl
topoctl plan --batch - < questions.jsonl
"""


@takes_job
def plan(
    ctx: typer.Context,
    job: dict[str, Any],
    *,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Plan on an emulated host or a host document; asks no daemon.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Answer one JSON question per line of FILE (- is stdin); asks no daemon.",
            show_default=False,
        ),
    ] = None,
    hosts: HostsOption = 1,
    select: SelectOption = None,
    gpu_model: GpuModelOption = "",
    output: TextOrJsonOption = TextOrJson.TABLE,
) -> int:
    """Show what a job would get now, and who would be stopped.

    Exit status: 0 the job fits without stopping anyone, 10 others would be stopped, 11 it would wait,
    1 it can never run on this host.
    """
    chosen = where(hosts, select, gpu_model)
    of_a_fleet = [f"{name}" for name, value in chosen.items() if value not in (1, [], "")]
    if batch is not None:
        others = [*(name for name, value in job.items() if value not in (None, [])), *of_a_fleet]
        if others or host is not None:
            flag = (others or ["host"])[0].replace("_", "-")
            raise UsageError(f"--batch takes no --{flag}: each line of its file says what is asked")
        return _answer(batch)
    from topoctl.commands.plan_one import plan_one

    if host is not None and of_a_fleet:
        flag = of_a_fleet[0].replace("_", "-")
        raise UsageError(f"--host plans on that one host: it takes no --{flag}")
    return plan_one(ctx, job, host, chosen, output)


def _answer(path: Path) -> int:
    """Write one answer per question to stdout; return the exit status."""
    from topoctl.batch import Batch

    batch = Batch(Path() if str(path) == "-" else path.parent)
    out = sys.stdout.buffer
    for answer in batch.answers(_questions(path)):
        out.write(answer)
        out.flush()  # the reader may be waiting for this very line
    return 1 if batch.failures else 0


def _questions(path: Path) -> Iterator[bytes]:
    """Yield the lines of the file; what goes wrong while they are answered is none of its errors."""
    try:
        if str(path) == "-":
            yield from sys.stdin.buffer
            return
        with path.open("rb") as questions:
            yield from questions
    except FileNotFoundError as error:
        raise NotFoundError(f"no such file: {path}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"cannot be read: {reason}", source=str(path)) from error

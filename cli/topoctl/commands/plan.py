"""`topoctl plan`: what would happen, without doing it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

if TYPE_CHECKING:
    from topoctl.batch import Batch

EXAMPLES = """
topoctl plan --batch questions.jsonl > answers.jsonl
topoctl plan --batch - < questions.jsonl
"""


def plan(
    batch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Answer one JSON question per line of FILE (- is stdin); asks no daemon.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show which GPUs and CPUs a job would get, and which jobs would be stopped for it."""
    from topod.errors import UsageError  # noqa: PLC0415 - imported when the command runs

    if batch is None:
        raise UsageError("plan needs --batch FILE")
    raise typer.Exit(_answer(batch))


def _answer(path: Path) -> int:
    """Write one answer per question to stdout; return the exit status."""
    from topoctl.batch import Batch  # noqa: PLC0415 - imported when the command runs
    from topod.errors import DataError, NotFoundError  # noqa: PLC0415

    try:
        if str(path) == "-":
            return _stream(Batch(Path()), sys.stdin.buffer)
        with path.open("rb") as questions:
            return _stream(Batch(path.parent), questions)
    except FileNotFoundError as error:
        raise NotFoundError(f"no such file: {path}") from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", source=str(path)) from error


def _stream(batch: "Batch", questions: BinaryIO) -> int:
    out = sys.stdout.buffer
    for answer in batch.answers(questions):
        out.write(answer)
        out.flush()  # the reader may be waiting for this very line
    return 1 if batch.failures else 0

"""`topoctl report`: a period as a page that needs nothing else."""

import os
import sys
import tempfile
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from topoctl.session import connect, note, show
from topod.errors import StoreError, UsageError
from topod.protocol.units import parse_duration

EXAMPLES = """
topoctl report --output week.html
topoctl report --since 2026-11-01 --until 2026-12-01 --output november.html
topoctl report --since 24h > day.html
topoctl --host gpu-7 report --output gpu-7.html
"""


def report(
    ctx: typer.Context,
    *,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="7d means: seven days ago; or 2026-11-20 14:00.")
    ] = "7d",
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="The same; else now.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="Where to write it; else to stdout.", show_default=False
        ),
    ] = None,
) -> None:
    """Write a report of a period as an HTML file.

    Of this host or of a fleet it tells preemptions, affinity, GPU-hours, waiting times and the use of the
    GPUs, with charts. The page needs nothing from elsewhere.
    """
    from topoctl.report.facts import Period
    from topoctl.report.gather import gather
    from topoctl.report.page import About
    from topoctl.report.page import report as page

    now = time.time()
    period = Period(since=when("--since", since, now), until=min(now, when("--until", until or "0", now)))
    if period.seconds <= 0:
        raise UsageError("the period ends before it begins: look at --since and --until")
    if output is None and sys.stdout.isatty():
        raise UsageError("a page is no text for a terminal", hint="topoctl report --output report.html")
    host = (ctx.obj or {}).get("host") or ""
    name, facts = gather(partial(connect, ctx), host, period, now)
    text = page(facts, About(name=name, made=now))
    if output is None:
        show(text)
    else:
        write(output, text)
        note(f"wrote {output}")


def when(option: str, text: str, now: float) -> float:
    """Return the moment, in epoch seconds, that a duration ago or a local date and time name."""
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text.strip()).timestamp()  # without a zone: local time
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{option}: not a time: {text!r}", hint="7d, 24h, 2026-11-20, '2026-11-20 14:00'"
        ) from None


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all. Raises `StoreError`."""
    draft = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="replace", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            draft = Path(file.name)
            file.write(text)
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)
        draft.replace(path)
    except OSError as error:
        if draft is not None:
            draft.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from None

"""`topoctl report`: a period as a page that needs nothing else."""

import sys
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from topoctl.outfile import write
from topoctl.session import connect, note, show
from topod.errors import UsageError
from topod.protocol.units import parse_duration

EXAMPLES = """
topoctl report --out week.html
topoctl report --since 2026-11-01 --until 2026-12-01 --out november.html
topoctl report --since 24h > day.html
topoctl --host gpu-7 report --out gpu-7.html
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
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to write it; else to stdout.", show_default=False),
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
    if out is None and sys.stdout.isatty():
        raise UsageError("a page is no text for a terminal", hint="topoctl report --out report.html")
    host = (ctx.obj or {}).get("host") or ""
    name, facts = gather(partial(connect, ctx), host, period, now)
    text = page(facts, About(name=name, made=now))
    if out is None:
        show(text)
    else:
        write(out, text)
        note(f"wrote {out}")


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

"""`topoctl config`: what topod is configured by, where each value came from, what is wrong in its files."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from topoctl import exit_codes
from topoctl.place import place
from topoctl.render.table import Column, table
from topoctl.session import TextOrJson, TextOrJsonOption, ask, connect, note, show, show_json, style
from topod.errors import DaemonUnavailableError, DataError, UsageError
from topod.protocol.replies import Configuration
from topod.protocol.requests import GetConfig

if TYPE_CHECKING:
    from topod.shell.options import Program

EXAMPLES = """
topoctl config show
topoctl config check
"""
SHOW_EXAMPLES = """
topoctl config show
topoctl config show --file ./topod.toml
topoctl config show -o json | jq '.rows[] | select(.origin != "default")'
"""
CHECK_EXAMPLES = """
topoctl config check
topoctl config check ./topod.toml && sudo systemctl reload topod
"""
VALUE_WIDTH: Final = 40
FileOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="What topod would take of it.", show_default=False),
]
CoordinatorFileOption = Annotated[
    Path | None,
    typer.Option(
        "--coordinator-file",
        metavar="FILE",
        help="What topod-coordinator would take of it.",
        show_default=False,
    ),
]


def config() -> None:
    """Show the configuration, and find its mistakes."""


def show_config(
    ctx: typer.Context,
    *,
    file: FileOption = None,
    coordinator_file: CoordinatorFileOption = None,
    output: TextOrJsonOption = TextOrJson.TABLE,
) -> None:
    """Show each value that is in force, where it came from, and what waits for a reload or a restart.

    Of the running daemon, for its administrators. With a file, or where no topod runs: what a start would
    take of it, of `conf.d` beside it, and of the variables of this shell.
    """
    from topod.shell.options import COORDINATOR, HOST

    if file is not None and coordinator_file is not None:
        raise UsageError("give either --file or --coordinator-file")
    if coordinator_file is not None:
        found = _offline(COORDINATOR, coordinator_file)
    elif file is not None:
        found = _offline(HOST, file)
    else:
        found = _running(ctx) or _offline(HOST, None)
    if output is TextOrJson.JSON:
        show_json(found)
    else:
        _show(ctx, found)


def check(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Default: /etc/topod/topod.toml.", show_default=False),
    ] = None,
) -> int:
    """Find every mistake in a configuration file and in `conf.d` beside it, without starting anything.

    Each is a line with its file and line; the exit status is 65 then.
    """
    from topod.shell.config_reading import DEFAULT_PATH, lines_of, load_config

    named = file or (Path(os.environ["TOPOD_CONFIG"]) if os.environ.get("TOPOD_CONFIG") else None)
    try:
        loaded = load_config(named)
    except DataError as error:
        for line in lines_of(error):
            note(f"error: {line}")
        return exit_codes.BAD_DATA
    what = ", ".join(loaded.files) or f"no {DEFAULT_PATH}: everything has its default"
    show(f"{what}: no mistake\n" if loaded.files else f"{what}\n")
    return exit_codes.OK


def _running(ctx: typer.Context) -> Configuration | None:
    """Return what the running daemon says; None: none runs on this machine."""
    try:
        with connect(ctx) as client:
            return ask(client, GetConfig(), Configuration)
    except DaemonUnavailableError as error:
        if place(ctx) is not None:
            raise
        note(f"{error.message}: this is what a start would take")
        return None


def _offline(program: "Program", file: Path | None) -> Configuration:
    from topod.shell.config_reading import load_config
    from topod.shell.config_rows import rows_of
    from topod.shell.options import read_given

    given = read_given(program, [] if file is None else ["--config", str(file)], os.environ)
    path = given.values["config"]
    loaded = load_config(Path(path).absolute() if path else None)
    return Configuration(rows=list(rows_of(loaded, given).values()), files=list(loaded.files))


def _show(ctx: typer.Context, found: Configuration) -> None:
    look = style(ctx)
    rows = [
        (
            row.key,
            # What it is from is never cut: that is what one asks for.
            row.text if look.piped else look.cut(row.text, VALUE_WIDTH),
            row.origin,
            f"{row.coming_text} ({row.coming_origin or 'taken out'}) after a {row.waits}"
            if row.waits
            else "",
        )
        for row in found.rows
    ]
    columns = [Column(head="KEY"), Column(head="VALUE"), Column(head="FROM")]
    if any(row[3] for row in rows):
        show(table([*columns, Column(head="WAITS")], rows, look, whole=True))
    else:
        show(table(columns, [row[:3] for row in rows], look, whole=True))
    for mistake in found.mistakes:
        note(f"a reload would refuse this: {mistake}")

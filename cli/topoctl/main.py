"""The `topoctl` command: global options, and one line instead of a traceback for every error.

Rule: stdout carries data, stderr carries prose. Nothing heavy is imported here: a command's module is
imported when that command runs (see `topoctl.lazy`).
"""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from topoctl import exit_codes
from topoctl.lazy import LazyGroup
from topod import __version__
from topod.errors import TopodError

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""topoctl writes to stdout and stderr only: with one of these, that is what failed."""

app = typer.Typer(
    cls=LazyGroup,
    name="topoctl",
    rich_markup_mode=None,  # rich costs 100 ms on every `--help`
    add_completion="_TOPOCTL_COMPLETE" in os.environ,  # set by the scripts of `topoctl completion`
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"topoctl {__version__}")
        raise typer.Exit


@app.callback()
def topoctl(
    ctx: typer.Context,
    *,
    socket: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Where topod listens (also: TOPOD_SOCKET).", show_default=False),
    ] = None,
    coordinator: Annotated[
        str | None,
        typer.Option(
            metavar="TCP",
            help="Where a fleet's coordinator listens, as tcp://HOST:PORT (also: TOPOD_COORDINATOR).",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Your key for it (also: TOPOD_KEY).", show_default=False),
    ] = None,
    coordinator_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY|FILE",
            help="Its public key (also: TOPOD_COORDINATOR_KEY).",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a fleet: ask this host of it.", show_default=False),
    ] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="Plain text (also: NO_COLOR=1).")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Run GPU jobs on this host: placed by its topology, stopping as few others as possible."""
    del version
    places = {"socket": socket, "coordinator": coordinator, "key": key, "coordinator_key": coordinator_key}
    ctx.ensure_object(dict).update({**places, "host": host, "no_color": no_color})


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command (default: that of this process) and return its exit status.

    Every error becomes one line on stderr; `TOPOCTL_DEBUG=1` lets unexpected ones through as tracebacks.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not _streams():
        return fail("stdout is closed", "to throw the output away: >/dev/null", exit_codes.STORE)
    try:
        status = _command(words)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return exit_codes.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback reaches a user
        return _failed(error)
    return status if isinstance(status, int) else exit_codes.OK


def _command(words: list[str]) -> object:
    """Run the command that the words name and return what its function returned."""
    group = typer.main.get_command(app)
    if "_TOPOCTL_COMPLETE" in os.environ:
        return group.main(args=words, prog_name="topoctl", standalone_mode=False)
    # Not `main`: that of typer turns a closed pipe into status 1.
    try:
        with group.make_context("topoctl", words or ["--help"]) as ctx:
            return group.invoke(ctx)
    except typer.Exit as end:
        return end.exit_code


def _streams() -> bool:
    """Open what the caller has closed, so that no file or socket gets its number; False: no stdout."""
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - open to the end
    there = sys.stdout is not None
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    return there


def fail(message: str, hint: str | None, status: int) -> int:
    """Write `error: ...`, and the hint after an empty line, to stderr; return `status`."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        text = f"error: {message}\n" + (f"\nhint: {hint}\n" if hint else "")
        sys.stderr.write(text)
    return status


def _failed(error: Exception) -> int:
    """Tell what went wrong and return the status for it."""
    if isinstance(error, TopodError):
        return fail(error.message, error.hint, error.exit_status)
    if isinstance(error, BrokenPipeError):
        _stop_writing()
        return exit_codes.PIPE
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        _stop_writing()
        return fail(f"the output cannot be written: {error.strerror}", None, exit_codes.STORE)
    return _unexpected(error)


def _unexpected(error: Exception) -> int:
    # typer's usage errors; it does not export their class.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "topoctl"
        text = " ".join(str(error.format_message()).split()).rstrip(".")
        return fail(text[:1].lower() + text[1:], f"{where} --help", exit_codes.USAGE)
    if os.environ.get("TOPOCTL_DEBUG"):
        raise error
    hint = "this is a bug in topoctl; TOPOCTL_DEBUG=1 shows where"
    text = " ".join(str(error).split())
    return fail(f"internal: {type(error).__name__}: {text}", hint, exit_codes.ERROR)


def _stop_writing() -> None:
    """Point stdout at nothing: it takes no more, and Python flushes once more at the end."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())

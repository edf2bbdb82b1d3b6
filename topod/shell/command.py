"""How the commands of daemons run: settings, log, one line and an exit status at the end."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import NoReturn, Protocol, TypeVar

from topod.errors import TopodError
from topod.shell import faults
from topod.shell.logs import set_up


class Settings(Protocol):
    """What the settings of every daemon have."""

    @property
    def log_format(self) -> str:
        """See `topod.shell.logs.set_up`."""
        ...

    @property
    def log_level(self) -> str:
        """See `topod.shell.logs.set_up`."""
        ...

    @property
    def crash_at(self) -> int | None:
        """See `topod.shell.faults.arm`."""
        ...


S = TypeVar("S", bound=Settings)
Read = Callable[[Sequence[str], Mapping[str, str]], S]
Serve = Callable[[S], Coroutine[None, None, None]]


def run_command(read: Read[S], serve: Serve[S], arguments: Sequence[str] | None) -> NoReturn:
    """Run a daemon in the foreground and end the process with its exit status.

    `arguments` None: those of the process.
    """
    status = _run(read, serve, sys.argv[1:] if arguments is None else arguments)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit, for the same reason as below.
    os._exit(status)


def _run(read: Read[S], serve: Serve[S], arguments: Sequence[str]) -> int:
    try:
        settings = read(arguments, os.environ)
        set_up(settings.log_format, settings.log_level)
        faults.arm(settings.crash_at)
        # Not asyncio.run: at its end it waits for the threads, and one may hang in a call to the engine.
        asyncio.new_event_loop().run_until_complete(serve(settings))
    except TopodError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201 - the command's answer to its user
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)  # noqa: T201 - as above
        return error.exit_status
    except SystemExit as asked:
        # argparse: --help, --version, a wrong flag.
        return asked.code if isinstance(asked.code, int) else 2
    return 0

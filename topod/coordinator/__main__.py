"""The command `topod-coordinator`: reads the settings, runs the coordinator, ends in one line."""

import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from topod.coordinator.config import read_settings
from topod.coordinator.wiring import run
from topod.errors import TopodError
from topod.shell import faults
from topod.shell.logs import set_up


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a coordinator in the foreground and end the process with its exit status."""
    status = _run(sys.argv[1:] if arguments is None else arguments)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: it waits for threads, and one may hang in a look-up of a user.
    os._exit(status)


def _run(arguments: Sequence[str]) -> int:
    try:
        settings = read_settings(arguments, os.environ)
        set_up(settings.log_format, settings.log_level)
        faults.arm(settings.crash_at)
        asyncio.new_event_loop().run_until_complete(run(settings))
    except TopodError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201 - the command's answer to its user
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)  # noqa: T201 - as above
        return error.exit_status
    except SystemExit as asked:
        # argparse: --help, --version, a wrong flag.
        return asked.code if isinstance(asked.code, int) else 2
    return 0


if __name__ == "__main__":
    main()

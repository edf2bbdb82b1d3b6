"""The command `topod`: reads the settings, runs the daemon, ends in one line."""

from collections.abc import Sequence

from topod.daemon.config import read_settings
from topod.daemon.wiring import run
from topod.shell.command import run_command


def main(arguments: Sequence[str] | None = None) -> None:
    """Run topod in the foreground and end the process with its exit status."""
    run_command(read_settings, run, arguments)


if __name__ == "__main__":
    main()

"""The command `topod-coordinator`: reads the settings, runs the coordinator, ends in one line."""

from collections.abc import Sequence

from topod.coordinator.config import read_settings
from topod.coordinator.wiring import run
from topod.shell.command import run_command


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a coordinator in the foreground and end the process with its exit status."""
    run_command(read_settings, run, arguments)


if __name__ == "__main__":
    main()

"""The command palette: everything that a key does, by name."""

from collections.abc import Awaitable, Callable
from typing import ClassVar, Final

from textual.command import DiscoveryHit, Hit, Hits, Provider

Command = tuple[str, str, str]
"""What it is called, the action, and what more is said of it."""
_JOBS: Final[tuple[Command, ...]] = (
    ("Job: details", "details", "i, Enter"),
    ("Job: output", "log", "l"),
    ("Job: cancel", "cancel", "k; asks first"),
    ("Job: requeue", "requeue", "r; asks first"),
    ("Job: change its priority", "priority", "p; asks first"),
)
_LAST: Final[tuple[Command, ...]] = (
    ("Record to a file, or stop recording", "record", "R"),
    ("Keys", "help", "?"),
)
OF_HOST: Final[tuple[Command, ...]] = (
    ("Show the host", "tab('host')", "sockets, GPUs, links"),
    ("Show jobs", "tab('jobs')", "those that are on, and the queue"),
    ("Show jobs that ended", "tab('ended')", "the last first"),
    ("Show preemptions", "tab('preemptions')", "who was stopped for whom, and why"),
    ("Show events", "tab('events')", "the host's story"),
    ("What if: plan a job", "what_if", "w"),
    ("Filter jobs", "filter", "/"),
    *_JOBS,
    ("Drain or resume the host", "drain", "d; asks first"),
    *_LAST,
)
OF_FLEET: Final[tuple[Command, ...]] = (
    ("Show the hosts", "tab('fleet')", "a line each"),
    ("Show jobs", "tab('jobs')", "those that are on, and the queue"),
    ("Show jobs that ended", "tab('ended')", "the last first"),
    ("Show preemptions", "tab('preemptions')", "who was stopped for whom"),
    ("Show events", "tab('events')", "the fleet's story"),
    ("What if: plan a job", "what_if", "w"),
    ("Filter hosts or jobs", "filter", "/"),
    ("Hosts: sort by the next column", "sort", "s"),
    ("Hosts: turn the order", "turn", "S"),
    ("Host: cordon", "cordon", "c; asks first"),
    ("Host: drain", "drain", "d; asks first"),
    ("Host: let it take jobs again", "resume", "u; asks first"),
    *_JOBS,
    *_LAST,
)


class _Commands(Provider):
    """Finds the commands of a screen."""

    commands: ClassVar[tuple[Command, ...]]

    async def discover(self) -> Hits:
        """Yield all commands."""
        for name, action, text in self._offered():
            yield DiscoveryHit(name, self._run(action), help=text)

    async def search(self, query: str) -> Hits:
        """Yield the commands that have these letters."""
        matcher = self.matcher(query)
        for name, action, text in self._offered():
            if (score := matcher.match(name)) > 0:
                yield Hit(score, matcher.highlight(name), self._run(action), help=text)

    def _offered(self) -> list[tuple[str, str, str]]:
        """Return the commands that mean something now."""
        check = self.screen.check_action
        return [one for one in self.commands if check(one[1].partition("(")[0], ()) is not False]

    def _run(self, action: str) -> Callable[[], Awaitable[None]]:
        screen = self.screen

        async def run() -> None:
            await screen.run_action(action)

        return run


class HostCommands(_Commands):
    """Those of a host's screen."""

    commands = OF_HOST


class FleetCommands(_Commands):
    """Those of a fleet's screen."""

    commands = OF_FLEET

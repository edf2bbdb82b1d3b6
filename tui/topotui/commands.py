"""The command palette: everything that a key does, by name."""

from collections.abc import Awaitable, Callable
from typing import Final

from textual.command import DiscoveryHit, Hit, Hits, Provider

COMMANDS: Final = (
    ("Show the host", "tab('host')", "sockets, GPUs, links"),
    ("Show jobs", "tab('jobs')", "those that are on, and the queue"),
    ("Show jobs that ended", "tab('ended')", "the last first"),
    ("Show preemptions", "tab('preemptions')", "who was stopped for whom, and why"),
    ("Show events", "tab('events')", "the host's story"),
    ("What if: plan a job", "what_if", "w"),
    ("Filter jobs", "filter", "/"),
    ("Job: details", "details", "i, Enter"),
    ("Job: output", "log", "l"),
    ("Job: cancel", "cancel", "k; asks first"),
    ("Job: requeue", "requeue", "r; asks first"),
    ("Job: change its priority", "priority", "p; asks first"),
    ("Drain or resume the host", "drain", "d; asks first"),
    ("Record to a file, or stop recording", "record", "R"),
    ("Keys", "help", "?"),
)


class HostCommands(Provider):
    """Finds commands of the screen of a host."""

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
        return [one for one in COMMANDS if check(one[1].partition("(")[0], ()) is not False]

    def _run(self, action: str) -> Callable[[], Awaitable[None]]:
        screen = self.screen

        async def run() -> None:
            await screen.run_action(action)

        return run

"""Steps: what is to be done to a machine, each with the words that tell it."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from topod.errors import TopodError

COMMAND_SECONDS = 300.0
WIDE = 46
"""Characters of a step's path or command, before what is said of it."""


class StepFailedError(TopodError):
    """A program of the system refused its part."""

    code = "step-failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. `verb`, `what` and `of_it` are shown; `act` does it, None: there is nothing to do."""

    verb: str
    what: str
    of_it: str = ""
    act: Callable[[], None] | None = None

    def line(self) -> str:
        """Return the line that tells it."""
        return f"  {self.verb:<8} {self.what:<{WIDE}} {self.of_it}".rstrip() + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """The machine: the one that runs, or the files of another one below `root`."""

    root: Path

    @property
    def live(self) -> bool:
        """Whether it is the machine that runs this."""
        return self.root == Path("/")

    def path(self, path: str) -> Path:
        """Return where a file of the machine lies."""
        return self.root / path.lstrip("/")

    def run(self, *words: str, of_it: str) -> Step:
        """Return the step that runs a program of systemd, on the files below `root` where that is another."""
        program, *rest = words
        whole = [program, *([] if self.live else [f"--root={self.root}"]), *rest]
        return Step(verb="run", what=" ".join(whole), of_it=of_it, act=lambda: _run(whole))


def _run(words: Sequence[str]) -> None:
    if shutil.which(words[0]) is None:
        raise StepFailedError(f"{words[0]} is not installed", hint="it comes with systemd")
    try:
        done = subprocess.run(  # noqa: S603 - the words of `System.run`
            words, capture_output=True, text=True, errors="replace", check=False, timeout=COMMAND_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise StepFailedError(f"{' '.join(words)}: not done after {COMMAND_SECONDS:.0f} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise StepFailedError(f"{' '.join(words)}: {said[-1] if said else f'status {done.returncode}'}")


def carry_out(steps: Sequence[Step], *, apply: bool) -> Iterator[str]:
    """Yield the line of each step, once it is done where `apply` says so."""
    for step in steps:
        if apply and step.act is not None:
            step.act()
        yield step.line()

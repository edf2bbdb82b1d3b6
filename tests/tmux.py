"""A real terminal for tests: tmux, with a server of its own."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import pytest

from tests.engine import skip_or_fail

SECONDS = 60.0


class Tmux:
    """One program in a terminal of a given size; both end with the test."""

    def __init__(
        self, folder: Path, command: Sequence[str], size: tuple[int, int], environment: dict[str, str]
    ) -> None:
        if shutil.which("tmux") is None:
            skip_or_fail("tmux is not installed (package tmux)")
        self._tmux = ("tmux", "-S", str(folder / "tmux"), "-f", "/dev/null")
        width, height = map(str, size)
        self._run(
            "new-session", "-d", "-x", width, "-y", height, *command,
            environment={**os.environ, **environment, "TERM": "screen"},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._run("kill-server", check=False)

    def _run(self, *words: str, check: bool = True, environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [*self._tmux, *words], capture_output=True, text=True, check=False, timeout=30, env=environment
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    @property
    def text(self) -> str:
        """What is on the screen; empty once the program has ended."""
        return self._run("capture-pane", "-p", check=False)

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        self._run("send-keys", *keys)

    def until(self, condition: Callable[[str], object]) -> str:
        """Return the screen once it is so; fail with it where it does not come to that."""
        end = time.monotonic() + SECONDS
        while not condition(shown := self.text):
            if time.monotonic() > end:
                pytest.fail(f"the screen did not come to that:\n{shown}")
            time.sleep(0.05)
        return shown

"""One finding of the doctor.

Rule for all that make them: a check never raises and always ends; what it finds wrong comes with the command
that mends it.
"""

import shutil
import subprocess
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

Verdict = Literal["ok", "warn", "bad"]
PROBE_SECONDS: Final = 5.0
EMULATE: Final = "emulate a host: topod --host dgx1"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `doctor`; `mend` is a command or a sentence, empty where nothing is to be done."""

    name: str
    verdict: Verdict
    text: str
    mend: str = ""


def count(number: int, word: str) -> str:
    """Return `1 GPU`, `2 GPUs`."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def size(number: float) -> str:
    """Return a number of bytes as people say it: `24 GiB`, `8 MiB`."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30)):
        if number >= factor:
            return f"{number / factor:.0f} {unit}"
    return f"{number / (1 << 20):.0f} MiB"


def output(command: Sequence[str], path: str | None = None) -> str | None:
    """Return what a program says on stdout; None where it is not there, fails, or takes too long."""
    program = shutil.which(command[0], path=path)
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - fixed words, no shell
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None

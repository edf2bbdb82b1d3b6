"""What `topoctl top` does without a terminal, and when its terminal goes away."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.integration.daemon_process import ROOT

STORY = Path(__file__).parents[1] / "unit" / "topotui" / "story.jsonl"
TOP = [sys.executable, "-m", "topoctl", "top", "--replay", str(STORY)]


def test_without_a_terminal_it_says_so_in_a_line() -> None:
    done = subprocess.run(
        TOP, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: topoctl top needs a terminal\n")


def test_it_ends_when_its_terminal_goes_away_though_no_signal_comes() -> None:
    reader, terminal = pty.openpty()
    with subprocess.Popen(
        TOP, cwd=ROOT, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    ) as process:
        try:
            os.close(terminal)
            shown = b""
            while b"GPUs" not in shown:
                shown += os.read(reader, 1 << 16)
            os.close(reader)
            assert process.wait(60) == 129
        finally:
            process.kill()

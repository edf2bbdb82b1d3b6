"""Prometheus's own check of what is written for it, where the machine has it."""

import shutil
import subprocess

import pytest

from tests.engine import skip_or_fail


def promtool(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool; without it the test is skipped."""
    program = shutil.which("promtool")
    if program is None:
        skip_or_fail("promtool is not installed (package prometheus)")
        raise pytest.skip.Exception
    return subprocess.run(
        [program, *words], input=text, capture_output=True, text=True, check=False, timeout=60
    )

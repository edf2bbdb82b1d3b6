"""What several tests need and only one has to work for, whichever process each of them runs in."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def once(factory: pytest.TempPathFactory, name: str, work: Callable[[], bytes]) -> bytes:
    """Return what `work` gives; in a run of the tests it is done once, by who asks first. Others wait for it."""
    base = factory.getbasetemp()
    # Every worker of xdist has a folder of its own in that of the run.
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    kept = Path(folder) / f"once-{name}"
    with Path(f"{kept}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            result = work()
            kept.write_bytes(result)
            return result
        return kept.read_bytes()

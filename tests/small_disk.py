"""A file system of half a megabyte, for tests of full disks."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engine import skip_or_fail


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Yield the folder, made and mounted; skip the test where this user cannot."""
    if os.geteuid() != 0:
        skip_or_fail("only root can mount a small file system")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        skip_or_fail("this machine does not let root mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)

"""Where the reference captures lie: beside the checkout, read in place, never copied."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"

needs_shared = pytest.mark.skipif(
    not (SHARED / "topo").is_dir(), reason="the reference captures (../shared) are not beside this checkout"
)

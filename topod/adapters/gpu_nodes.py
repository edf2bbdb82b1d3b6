"""The device files of GPUs, as the NVIDIA driver tells them under /proc/driver/nvidia.

Why they are named in a container's request although the NVIDIA runtime adds them by itself: what it adds the
engine does not know of, so `systemctl daemon-reload` (with the systemd cgroup driver) takes the GPUs from
every running container; NVIDIA's advice is to name the device files (NVIDIA/nvidia-container-toolkit#48).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

CONTROL_NODES: Final = (
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
)
"""What every container with a GPU uses beside it; a file that is missing is left out."""


def gpu_nodes(root: Path = Path("/")) -> Mapping[str, str]:
    """Return the device file of each GPU by UUID; only of GPUs whose file exists.

    `root` is the file system to look at. Never raises: what cannot be read is left out.
    """
    found: dict[str, str] = {}
    for entry in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        try:
            text = entry.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # the GPU went away
        facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        uuid, minor = facts.get("GPU UUID", "").strip(), facts.get("Device Minor", "").strip()
        node = f"dev/nvidia{minor}"
        if uuid and minor.isdecimal() and (root / node).exists():
            found[uuid] = f"/{node}"
    return found


def control_nodes(root: Path = Path("/")) -> tuple[str, ...]:
    """Return the control files that exist."""
    return tuple(node for node in CONTROL_NODES if (root / node.lstrip("/")).exists())

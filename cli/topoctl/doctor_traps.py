"""Settings of a GPU host that are known to bite later, each with what it leads to and what mends it.

Rule: as in `doctor_checks`, a check never raises and always ends. What does not concern a machine (no driver,
no NVSwitch) is not mentioned.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from topoctl.doctor_checks import Check
from topod.adapters.docker_engine import EngineFacts

TOOL_SECONDS: Final = 5.0


def driver_traps(root: Path = Path("/")) -> Iterator[Check]:
    """Yield what is known of the driver's services; nothing where no NVIDIA driver is loaded."""
    if not (root / "proc/driver/nvidia/version").exists():
        return
    if (root / "run/nvidia-persistenced/socket").exists():
        yield Check(name="persistence", verdict="ok", text="nvidia-persistenced runs")
    else:
        yield Check(
            name="persistence",
            verdict="warn",
            text="nvidia-persistenced does not run: each first use of an idle GPU takes seconds",
            mend="sudo systemctl enable --now nvidia-persistenced",
        )
    if (root / "proc/driver/nvidia-nvswitch/devices").is_dir():
        if _active("nvidia-fabricmanager"):
            yield Check(name="fabric", verdict="ok", text="NVSwitches, and the fabric manager runs")
        else:
            yield Check(
                name="fabric",
                verdict="bad",
                text="NVSwitches without a fabric manager: CUDA fails with error 802",
                mend="sudo systemctl enable --now nvidia-fabricmanager",
            )


def engine_traps(facts: EngineFacts, *, bare_gpus: bool) -> Iterator[Check]:
    """Yield what the engine says of itself; `bare_gpus`: there are GPUs whose device files are unknown."""
    if facts.live_restore:
        yield Check(name="live-restore", verdict="ok", text="jobs outlive a restart of the engine")
    else:
        yield Check(
            name="live-restore",
            verdict="warn",
            text="a restart of the engine ends every job",
            mend='add "live-restore": true to /etc/docker/daemon.json, then sudo systemctl reload docker',
        )
    text = f"cgroup {facts.cgroups}"
    if "systemd" in facts.cgroups and bare_gpus and not facts.cdi_devices:
        yield Check(
            name="cgroups",
            verdict="warn",
            text=f"{text}: `systemctl daemon-reload` may take the GPUs from running containers",
            mend="use CDI: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        )
    else:
        yield Check(name="cgroups", verdict="ok", text=text)


def memory_traps(root: Path = Path("/")) -> Iterator[Check]:
    """Yield kernel settings that move a job's memory about."""
    try:
        balancing = (root / "proc/sys/kernel/numa_balancing").read_text().strip()
    except OSError:
        return
    if balancing == "0":
        yield Check(name="balancing", verdict="ok", text="off: memory stays where jobs put it")
        return
    yield Check(
        name="balancing",
        verdict="warn",
        text="on: the kernel moves the memory of pinned jobs about, which costs them time",
        mend="sudo sysctl kernel.numa_balancing=0",
    )


def _active(unit: str) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words, no shell
            ["systemctl", "is-active", "--quiet", unit],  # noqa: S607 - found on the path, as by a person
            check=False,
            timeout=TOOL_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0

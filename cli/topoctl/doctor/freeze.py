"""Whether this host can freeze jobs (`--on-preempt checkpoint`): the engine, CRIU, NVIDIA's cuda-checkpoint.

Rule: as in `doctor_checks`, a check never raises and always ends. A host that is not set up for it is well:
such jobs are stopped and requeued there.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from topoctl.doctor.check import Check
from topod.adapters.docker_engine import EngineFacts

TOOL_SECONDS: Final = 5.0
OLDEST_CRIU: Final = 4
"""Older ones fail on today's kernels."""
OLDEST_DRIVER: Final = 550
ENGINE_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a service looks for programs."""


def freezing(facts: EngineFacts, root: Path = Path("/"), path: str = ENGINE_PATH) -> Check:
    """Return what a job that asks to be frozen may expect here."""
    criu = _criu_version(path)
    if not facts.experimental and criu is None:
        text = "not set up: jobs that ask for it are stopped and requeued (no criu, engine not experimental)"
        return Check(name="freezing", verdict="ok", text=text)
    wrong: list[tuple[str, str]] = []
    if not facts.experimental:
        mend = 'add "experimental": true to /etc/docker/daemon.json, then restart the engine'
        wrong.append(("the engine is not experimental", mend))
    if criu is None:
        wrong.append(("criu is not installed", f"install criu {OLDEST_CRIU} or newer"))
    elif criu[0] < OLDEST_CRIU:
        version = ".".join(map(str, criu))
        wrong.append((f"criu {version} is too old", f"install criu {OLDEST_CRIU} or newer"))
    # A name is looked up as the engine does it; a path, the engine's `--init-path`, stands for itself.
    init = shutil.which(facts.init_binary or "docker-init", path=path)
    if init is not None and Path(init).is_symlink():
        real = os.path.realpath(init)
        mend = f'add "init-path": "{real}" to /etc/docker/daemon.json, then restart the engine'
        wrong.append((f"CRIU cannot restore the mount of {init}, a symbolic link", mend))
    if wrong:
        text = "jobs cannot be frozen: " + "; ".join(text for text, _ in wrong)
        return Check(name="freezing", verdict="warn", text=text, mend="; ".join(mend for _, mend in wrong))
    assert criu is not None
    return Check(name="freezing", verdict="ok", text=f"criu {'.'.join(map(str, criu))}; {_cuda(root, path)}")


def _criu_version(path: str) -> tuple[int, ...] | None:
    program = shutil.which("criu", path=path)
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - fixed words, no shell
            [program, "--version"], capture_output=True, text=True, timeout=TOOL_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"^Version: (\d+(?:\.\d+)*)", done.stdout, re.MULTILINE)
    return tuple(int(part) for part in found[1].split(".")) if found else None


def _cuda(root: Path, path: str) -> str:
    """Say whether jobs with GPUs can be frozen as well."""
    try:
        found = re.search(r"Module\D*(\d+)", (root / "proc/driver/nvidia/version").read_text())
    except OSError:
        found = None
    if found is None:
        return "no NVIDIA driver, so only jobs without GPUs"
    if shutil.which("cuda-checkpoint", path=path) is None:
        return "no cuda-checkpoint: jobs with GPUs are stopped and requeued"
    if int(found[1]) < OLDEST_DRIVER:
        return f"driver {found[1]} is older than {OLDEST_DRIVER}: jobs with GPUs are stopped and requeued"
    return f"cuda-checkpoint with driver {found[1]}: jobs with GPUs too"

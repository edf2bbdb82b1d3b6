"""What runs on a machine just now: units, and jobs, also where topod itself does not answer."""

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Final

from topoctl.install.steps import System
from topod.errors import TopodError
from topod.protocol.client import SYSTEM_SOCKET, Client
from topod.protocol.replies import JobLines
from topod.protocol.requests import ListJobs

STATE: Final = Path("/var/lib/topod")
HOLDING: Final = ("starting", "running", "stopping")
SHIM: Final = b"process_shim.py"


def is_active(system: System, unit: str) -> bool:
    """Return whether a unit of this machine runs."""
    if not system.live:
        return False
    words = ["systemctl", "--quiet", "is-active", unit]
    with contextlib.suppress(OSError):
        return subprocess.run(words, capture_output=True, check=False).returncode == 0  # noqa: S603 - plain words
    return False


def jobs_left(system: System) -> str:
    """Return in words which jobs run on this machine; empty: none does.

    topod is asked; where it does not answer, the container engine, and the list of processes.
    """
    if not system.live or not STATE.exists():
        return ""
    with contextlib.suppress(TopodError), Client(SYSTEM_SOCKET) as client:
        reply = client.ask(ListJobs(brief=True), timeout=10.0)
        if isinstance(reply, JobLines):
            return _words(sorted(f"job {job.id} ({job.name})" for job in reply.jobs if job.state in HOLDING))
    containers = _containers()
    if containers is None:
        return "neither topod nor a container engine answers, so it is not known which jobs run"
    return _words([*containers, *_processes()])


def _words(found: list[str]) -> str:
    if len(found) > 5:
        found = [*found[:4], f"{len(found) - 4} more"]
    return f"{', '.join(found)} run{'s' if len(found) == 1 else ''}" if found else ""


def _containers() -> list[str] | None:
    """Return the containers of jobs that run; None: no engine answers."""
    import docker

    from topod.adapters.docker_engine import find_engine
    from topod.adapters.docker_spec import JOB_LABEL

    url = find_engine()
    if url is None:
        return None
    try:
        with contextlib.closing(docker.APIClient(base_url=url, timeout=30)) as client:
            found = client.containers(filters={"label": JOB_LABEL})
    except (docker.errors.DockerException, OSError):
        return None
    return sorted(f"container {one['Names'][0].lstrip('/')}" for one in found)


def _processes() -> list[str]:
    """Return the jobs without a container, which run below a small program of ours."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if SHIM in (folder / "cmdline").read_bytes():
                    found.append(f"process {folder.name}")
    return sorted(found)


if __name__ == "__main__":  # what a package says before it is removed
    sys.stdout.write(jobs_left(System(root=Path("/"))))

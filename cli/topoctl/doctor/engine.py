"""The container engine: which one, whether it hands out GPUs, and settings of it that bite later."""

import errno
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from topoctl.doctor.check import PROBE_SECONDS, Check, count, output, size
from topoctl.doctor.kernel import limits
from topod.errors import TopodError
from topod.protocol.replies import Welcome

if TYPE_CHECKING:
    from topod.adapters.docker_engine import EngineFacts

OLDEST: Final = {"docker": (20, 10), "podman": (4, 3)}
"""Older ones were never tried with topod."""
LOW_IMAGES_BYTES: Final = 30 << 30
"""Images for GPUs have 10 to 30 GB."""
DAEMON_JSON: Final = Path("etc/docker/daemon.json")
GENERATE_CDI: Final = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
BOUNDED_DRIVERS: Final = frozenset(
    {"local", "journald", "none", "syslog", "fluentd", "gelf", "awslogs", "splunk"}
)
"""Ways to log that keep no file without end."""


def engine(environ: Mapping[str, str], welcome: Welcome | None) -> Iterator[Check]:
    """Check the container engine, GPUs in containers, and which runtime a start would choose.

    The engine is that of the topod that answers; without one, the engine that a start would find.
    """
    from topod.adapters.docker_engine import Engine, find_engine

    used = welcome.engine if welcome is not None else ""
    url = used or environ.get("TOPOD_ENGINE") or find_engine()
    rootless = False
    if url is None:
        yield _no_engine()
    else:
        asked = Engine(
            url, call_timeout=PROBE_SECONDS, slow_timeout=PROBE_SECONDS, pull_timeout=PROBE_SECONDS
        )
        try:
            facts = asked.facts()
        except TopodError as error:
            mend = mend_engine(url, error.message, used=bool(used))
            yield Check(name="engine", verdict="warn", text=f"{error.message} ({url})", mend=mend)
        else:
            rootless = facts.rootless
            yield _version(facts, url)
            yield from _settings(facts)
        finally:
            asked.close()
    chosen, check = _runtime(environ, welcome, there=url is not None)
    yield check
    yield from limits(welcome, containers=chosen == "docker", rootless=rootless)


def _version(facts: "EngineFacts", url: str) -> Check:
    text = f"{facts.name} {facts.version} (API {facts.api_version}) at {url}"
    found = re.match(r"(\d+)\.(\d+)", facts.version)
    least = OLDEST[facts.name]
    if found and (int(found[1]), int(found[2])) < least:
        wanted = ".".join(map(str, least))
        return Check(
            name="engine",
            verdict="warn",
            text=f"{text}: older than {wanted}, never tried with topod",
            mend=f"install {facts.name} {wanted} or newer",
        )
    return Check(name="engine", verdict="ok", text=text)


def _settings(facts: "EngineFacts") -> Iterator[Check]:
    from topoctl.doctor.freeze import freezing
    from topoctl.doctor.gpus import driver_version
    from topod.adapters.gpu_nodes import gpu_nodes

    driver = driver_version()
    yield container_gpus(facts, driver)
    yield from traps(facts, bare_gpus=driver is not None and not gpu_nodes())
    yield from log_limits(facts)
    yield from _room(facts)
    yield freezing(facts)


def _runtime(environ: Mapping[str, str], welcome: Welcome | None, *, there: bool) -> tuple[str, Check]:
    if welcome is not None:
        text = f"{welcome.runtime}: chosen by the topod that answers"
        return welcome.runtime, Check(name="runtime", verdict="ok", text=text)
    forced = environ.get("TOPOD_RUNTIME", "auto")
    chosen = forced if forced != "auto" else "docker" if there else "process"
    words = {"docker": "jobs run in containers", "process": "jobs run as plain processes, not in containers"}
    why = "TOPOD_RUNTIME" if forced != "auto" else "the default"
    if chosen == "docker" and not there:
        text = "TOPOD_RUNTIME is docker and no engine answers"
        return chosen, Check(name="runtime", verdict="bad", text=text, mend="unset TOPOD_RUNTIME")
    text = f"{chosen} ({why}): {words.get(chosen, 'unknown')}"
    return chosen, Check(name="runtime", verdict="ok", text=text)


def mend_engine(url: str, trouble: str, *, used: bool) -> str:
    """Return what to do about an engine that does not work; `used`: a topod that answers has it."""
    from topod.adapters.docker_engine import DEFAULT_URL, NO_ANSWER, NO_PERMISSION

    if used and trouble.endswith(NO_PERMISSION):
        return "sudo topoctl doctor: topod may use it, you may not"
    if url not in (DEFAULT_URL, "unix:///run/docker.sock"):
        return f"docker -H {url} version"
    return f"systemctl {'restart' if trouble.endswith(NO_ANSWER) else 'status'} docker"


def _no_engine() -> Check:
    for path in ("/var/run/docker.sock", "/run/podman/podman.sock"):
        if Path(path).exists() and not os.access(path, os.R_OK | os.W_OK):
            return Check(
                name="engine",
                verdict="warn",
                text=f"no permission to use {path}",
                mend="sudo usermod -aG docker $USER, then log in again",
            )
    if shutil.which("dockerd"):
        hangs = listens(Path("/var/run/docker.sock"))
        return Check(
            name="engine",
            verdict="warn",
            text="the engine does not answer" if hangs else "Docker is installed and does not run",
            mend=f"sudo systemctl {'restart' if hangs else 'start'} docker",
        )
    return Check(
        name="engine",
        verdict="warn",
        text="no container engine answers",
        mend="sudo apt-get install docker.io",
    )


def listens(path: Path) -> bool:
    """Whether somebody has the socket open: who then says nothing hangs."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(1.0)
        try:
            wire.connect(str(path))
        except TimeoutError:
            return True
        except OSError as error:
            return error.errno == errno.EAGAIN  # its queue of connections is full
    return True


def container_gpus(
    facts: "EngineFacts", driver: str | None, root: Path = Path("/"), path: str | None = None
) -> Check:
    """Check how containers get GPUs: CDI, or the NVIDIA container runtime."""
    name, toolkit = "CDI", _toolkit(path)
    stale = sorted({version for version in _described(root) if driver and version != driver})
    if stale:
        return Check(
            name=name,
            verdict="bad",
            text=f"CDI describes the driver {', '.join(stale)}, {driver} is loaded: containers get no GPU",
            mend=GENERATE_CDI,
        )
    if facts.cdi_devices:
        text = f"the engine has {count(len(facts.cdi_devices), 'CDI device')} of nvidia.com/gpu{toolkit}"
        return Check(name=name, verdict="ok", text=text)
    if shutil.which("nvidia-container-runtime", path=path):
        text = f"no CDI device; GPUs are given by the NVIDIA container runtime{toolkit}"
        return Check(name=name, verdict="ok", text=text)
    without = f"neither CDI devices nor the NVIDIA container runtime{toolkit}: containers get no GPU"
    installed = shutil.which("nvidia-ctk", path=path) is not None
    mend = (
        GENERATE_CDI if installed else "sudo apt-get install nvidia-container-toolkit, then " + GENERATE_CDI
    )
    return Check(name=name, verdict="warn", text=without, mend=mend)


def _toolkit(path: str | None) -> str:
    found = re.search(r"version (\S+)", output(["nvidia-ctk", "--version"], path) or "")
    return f" (NVIDIA container toolkit {found[1]})" if found else ""


def _described(root: Path) -> Iterator[str]:
    """Yield the versions of the driver's library that the host's CDI files name."""
    for folder in ("etc/cdi", "var/run/cdi"):
        for file in sorted((root / folder).glob("*")):
            if file.suffix not in (".yaml", ".yml", ".json"):
                continue
            try:
                text = file.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            yield from re.findall(r"libcuda\.so\.(\d{3,}\.\d+(?:\.\d+)?)\b", text)


def traps(facts: "EngineFacts", *, bare_gpus: bool) -> Iterator[Check]:
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
            mend=f"use CDI: {GENERATE_CDI}",
        )
    else:
        yield Check(name="cgroups", verdict="ok", text=text)


def log_limits(facts: "EngineFacts", root: Path = Path("/")) -> Iterator[Check]:
    """Tell whether containers that topod did not start may fill the disk with what they print."""
    if facts.podman:
        return
    try:
        plain = json.loads((root / DAEMON_JSON).read_text(encoding="utf-8"))
    except FileNotFoundError:
        plain = {}
    except (OSError, ValueError) as error:
        why = "is not JSON" if isinstance(error, ValueError) else "cannot be read"
        mend = f"sudo python3 -m json.tool /{DAEMON_JSON}"
        yield Check(name="log limits", verdict="warn", text=f"/{DAEMON_JSON} {why}", mend=mend)
        return
    options = plain.get("log-opts") if isinstance(plain, dict) else None
    bounded = isinstance(options, dict) and "max-size" in options
    if bounded or facts.log_driver in BOUNDED_DRIVERS:
        yield Check(name="log limits", verdict="ok", text=f"{facts.log_driver}, bounded")
        return
    yield Check(
        name="log limits",
        verdict="warn",
        text=f"{facts.log_driver} without a bound: containers that topod did not start may fill the disk",
        mend=f'add "log-opts": {{"max-size": "50m", "max-file": "3"}} to /{DAEMON_JSON}, restart the engine',
    )


def _room(facts: "EngineFacts") -> Iterator[Check]:
    try:
        free = shutil.disk_usage(facts.root_dir).free
    except (OSError, ValueError):
        return  # an engine on another machine, or a folder of root
    text = f"{size(free)} free for images in {facts.root_dir}"
    if free < LOW_IMAGES_BYTES:
        yield Check(
            name="images",
            verdict="warn",
            text=f"{text}: an image for GPUs has 10 to 30 GB",
            mend="docker image prune",
        )
    else:
        yield Check(name="images", verdict="ok", text=text)

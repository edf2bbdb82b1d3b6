"""What a real start of topod would find on this machine, one check after the other.

Rule: a check never raises and always ends; what it finds wrong comes with the command that mends it.
"""

import errno
import os
import platform
import re
import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from topoctl.doctor_troubles import judged
from topod import __version__
from topod.errors import ProbeError, TopodError
from topod.protocol.client import Client, find_socket, is_coordinators
from topod.protocol.replies import Host, Welcome
from topod.protocol.requests import GetHost, Hello

if TYPE_CHECKING:
    from topod.adapters.docker_engine import EngineFacts

Verdict = Literal["ok", "warn", "bad"]
PROBE_SECONDS = 5.0
LOW_DISK_BYTES = 1 << 30
MAX_SOCKET_BYTES = 100
"""As topod itself wants it: the kernel's limit is 107, the event stream's name is 7 longer."""
EMULATE = "emulate a host: topod --host dgx1"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `doctor`; `mend` is a command or a sentence, empty where nothing is to be done."""

    name: str
    verdict: Verdict
    text: str
    mend: str = ""


def checks(socket: Path | None, environ: Mapping[str, str]) -> Iterator[Check]:
    """Yield the checks in the order in which a start would meet them."""
    path = socket or find_socket()
    welcome, daemon = check_daemon(path)
    yield system()
    if welcome is not None and welcome.fleet:
        # A coordinator needs no GPUs and no engine: each of its hosts has a doctor of its own.
        yield _state(Path(welcome.state_dir))
        yield daemon
        return
    yield from _gpus(emulated=welcome is not None and welcome.emulated)
    yield from _machine_traps()
    yield _sysfs()
    yield from _engine(environ, welcome)
    yield _state(Path(welcome.state_dir) if welcome else state_dir(environ))
    yield daemon
    if welcome is not None:
        yield from _groups(welcome.groups)
        yield from _devices(path)


def system() -> Check:
    """Check the interpreter and the operating system."""
    text = f"Python {platform.python_version()}, topod {__version__}, {sys.platform} {platform.machine()}"
    if sys.platform != "linux":
        return Check(name="system", verdict="bad", text=text, mend="topod runs on Linux only")
    return Check(name="system", verdict="ok", text=text)


def _gpus(*, emulated: bool) -> Iterator[Check]:
    """Check driver, NVML and nvidia-smi. Without GPUs a topod that emulates is still fine."""
    missing: Verdict = "warn" if emulated else "bad"
    driver = Path("/proc/driver/nvidia/version")
    try:
        first = driver.read_text(encoding="utf-8", errors="replace").splitlines()[0]
    except (OSError, IndexError):
        yield Check(
            name="driver",
            verdict="warn",
            text="no NVIDIA driver is loaded",
            mend="install it (apt-get install nvidia-driver), or " + EMULATE,
        )
    else:
        yield Check(name="driver", verdict="ok", text=first.removeprefix("NVRM version: "))
    yield _nvml(missing)
    yield _smi()


def _machine_traps() -> Iterator[Check]:
    from topoctl.doctor_traps import driver_traps, memory_traps

    yield from driver_traps()
    yield from memory_traps()


def _engine_traps(facts: "EngineFacts") -> Iterator[Check]:
    from topoctl.doctor_freeze import freezing
    from topoctl.doctor_traps import engine_traps
    from topod.adapters.gpu_nodes import gpu_nodes

    bare = Path("/proc/driver/nvidia/version").exists() and not gpu_nodes()
    yield from engine_traps(facts, bare_gpus=bare)
    yield freezing(facts)


def _nvml(missing: Verdict) -> Check:
    from topod.adapters.nvml_probe import NvmlProbe

    probe = NvmlProbe()
    try:
        facts = probe.snapshot(PROBE_SECONDS)
    except ProbeError as error:
        return Check(name="NVML", verdict=missing, text=f"{error.message}: topod finds no GPU", mend=EMULATE)
    finally:
        probe.close()
    if not facts.gpus:
        return Check(name="NVML", verdict=missing, text="NVML answers and lists no GPU", mend=EMULATE)
    lost = [f"GPU{gpu.index}: {gpu.problem}" for gpu in facts.gpus if gpu.problem]
    names = ", ".join(sorted({gpu.name for gpu in facts.gpus if gpu.name}))
    text = f"{len(facts.gpus)} GPUs ({names}), driver {facts.driver or 'unknown'}"
    if lost:
        return Check(name="NVML", verdict="warn", text=f"{text}; {'; '.join(lost)}", mend="nvidia-smi -q")
    return Check(name="NVML", verdict="ok", text=text)


def _smi() -> Check:
    from topod.adapters.nvidia_smi import topology_matrix
    from topod.discovery.parse_smi_topo import parse_matrix

    try:
        parse_matrix(topology_matrix(PROBE_SECONDS), "nvidia-smi topo -m")
    except TopodError as error:
        return Check(
            name="nvidia-smi",
            verdict="warn",
            text=f"{error.message}: only NVML and sysfs are used",
            mend="nvidia-smi topo -m" if shutil.which("nvidia-smi") else "it comes with the NVIDIA driver",
        )
    return Check(name="nvidia-smi", verdict="ok", text="its matrix can be read, as a second opinion")


def _sysfs() -> Check:
    from topod.adapters.sysfs_reader import this_machine

    try:
        facts = this_machine(Path("/"))
    except TopodError as error:
        return Check(name="sysfs", verdict="bad", text=error.message, mend="mount -t sysfs sysfs /sys")
    text = (
        f"{_count(len(facts.sockets), 'socket')}, {_count(len(facts.numa_nodes), 'NUMA node')}, "
        f"{_count(len(facts.core_groups), 'core group')}, {_count(len(facts.cores), 'core')}"
    )
    if not facts.numa_nodes:
        return Check(
            name="sysfs",
            verdict="warn",
            text=f"{text}: no job can be kept to a NUMA node",
            mend="ls /sys/devices/system/node",
        )
    return Check(name="sysfs", verdict="ok", text=text)


def _engine(environ: Mapping[str, str], welcome: Welcome | None) -> Iterator[Check]:
    """Check the container engine, GPUs in containers, and which runtime a start would choose.

    The engine is that of the topod that answers; without one, the engine that a start would find.
    """
    from topod.adapters.docker_engine import Engine, find_engine

    used = welcome.engine if welcome is not None else ""
    url = used or environ.get("TOPOD_ENGINE") or find_engine()
    forced = environ.get("TOPOD_RUNTIME", "auto")
    if url is None:
        yield _no_engine()
    else:
        engine = Engine(
            url, call_timeout=PROBE_SECONDS, slow_timeout=PROBE_SECONDS, pull_timeout=PROBE_SECONDS
        )
        try:
            facts = engine.facts()
        except TopodError as error:
            mend = _mend_engine(url, error.message, used=bool(used))
            yield Check(name="engine", verdict="warn", text=f"{error.message} ({url})", mend=mend)
        else:
            text = f"{facts.name} {facts.version} (API {facts.api_version}) at {url}"
            yield Check(name="engine", verdict="ok", text=text)
            yield _container_gpus(len(facts.cdi_devices))
            yield from _engine_traps(facts)
        finally:
            engine.close()
    if welcome is not None:
        text = f"{welcome.runtime}: chosen by the topod that answers"
        yield Check(name="runtime", verdict="ok", text=text)
        return
    chosen = forced if forced != "auto" else "process" if url is None else "docker"
    words = {"docker": "jobs run in containers", "process": "jobs run as plain processes, not in containers"}
    why = "TOPOD_RUNTIME" if forced != "auto" else "the default"
    if chosen == "docker" and url is None:
        yield Check(
            name="runtime",
            verdict="bad",
            text="TOPOD_RUNTIME is docker and no engine answers",
            mend="unset TOPOD_RUNTIME",
        )
    else:
        yield Check(name="runtime", verdict="ok", text=f"{chosen} ({why}): {words.get(chosen, 'unknown')}")


def _mend_engine(url: str, trouble: str, *, used: bool) -> str:
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
        hangs = _listens(Path("/var/run/docker.sock"))
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


def _listens(path: Path) -> bool:
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


def _container_gpus(devices: int) -> Check:
    if devices:
        text = f"the engine has {_count(devices, 'CDI device')} of nvidia.com/gpu"
        return Check(name="CDI", verdict="ok", text=text)
    if shutil.which("nvidia-container-runtime"):
        text = "no CDI device; GPUs are given by the NVIDIA container runtime"
        return Check(name="CDI", verdict="ok", text=text)
    return Check(
        name="CDI",
        verdict="warn",
        text="neither CDI devices nor the NVIDIA container runtime: containers get no GPU",
        mend="sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
    )


def state_dir(environ: Mapping[str, str]) -> Path:
    """Return where topod of this user keeps its state: the same rule as topod's own."""
    if environ.get("TOPOD_STATE_DIR"):
        return Path(environ["TOPOD_STATE_DIR"])
    if os.geteuid() == 0:
        return Path("/var/lib/topod")
    home = environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "topod"


def _state(path: Path) -> Check:
    there = next((parent for parent in (path, *path.parents) if parent.is_dir()), Path("/"))
    if not os.access(there, os.W_OK | os.X_OK):
        text = f"{path}: no permission to write in {there}"
        return Check(name="state", verdict="bad", text=text, mend="topod --state-dir DIR")
    usage = shutil.disk_usage(there)
    made = "" if there == path else ", will be made"
    text = f"{path}{made}, {usage.free / (1 << 30):.0f} GiB free"
    if usage.free < LOW_DISK_BYTES:
        return Check(name="state", verdict="warn", text=f"{text}: logs may fill it", mend=f"df -h {there}")
    return Check(name="state", verdict="ok", text=text)


def check_daemon(path: Path) -> tuple[Welcome | None, Check]:
    """Return what topod says of itself, if one answers on the socket, and the check of it."""
    if len(os.fsencode(path)) > MAX_SOCKET_BYTES:
        text = f"{path} is longer than {MAX_SOCKET_BYTES} bytes, too long for a socket"
        return None, Check(
            name="daemon", verdict="bad", text=text, mend="export TOPOD_SOCKET=/tmp/topod.sock"
        )
    try:
        with Client(path) as client:
            welcome = client.ask(Hello(), timeout=PROBE_SECONDS)
    except TopodError as error:
        mend = "topod-coordinator" if is_coordinators(path) else "topod"
        return None, Check(name="daemon", verdict="warn", text=error.message, mend=mend)
    if not isinstance(welcome, Welcome):
        return None, Check(name="daemon", verdict="bad", text=f"{path} is not topod's", mend="topod")
    kind = " (emulated)" if welcome.emulated else ""
    text = f"topod {welcome.version} answers on {path}: host {welcome.host}{kind}, {welcome.runtime_text}"
    if welcome.user:
        text += f"; you are {welcome.user} ({', '.join(welcome.roles) or 'no role'})"
    if welcome.version != __version__:
        mend = "restart topod: its jobs go on"
        return welcome, Check(
            name="daemon", verdict="warn", text=f"{text}; topoctl is {__version__}", mend=mend
        )
    verdict, mend = judged(welcome)
    text = "; ".join((text, *welcome.troubles))
    return welcome, Check(name="daemon", verdict=verdict, text=text, mend=mend)


def _groups(named: Mapping[str, list[str]]) -> Iterator[Check]:
    """Check the groups that topod's configuration names; no directory service is waited for long."""
    from topod.adapters.peers import unknown_groups

    found: list[str] = []
    look = threading.Thread(target=lambda: found.extend(unknown_groups(named)), daemon=True)
    look.start()
    look.join(PROBE_SECONDS)
    if look.is_alive():
        text = "the groups of the configuration cannot be looked up: no answer"
        yield Check(name="groups", verdict="warn", text=text, mend="getent group")
    for text in found:
        mend = "groupadd, or mend the name; a directory service may be away"
        yield Check(name="groups", verdict="warn", text=text, mend=mend)


def _devices(path: Path) -> Iterator[Check]:
    """Tell what the topod that answers keeps back, and why."""
    try:
        with Client(path) as client:
            reply = client.ask(GetHost(), timeout=PROBE_SECONDS)
    except TopodError:
        return
    if not isinstance(reply, Host):
        return
    host = reply.host
    if host.blind is not None:
        text = f"the health of the GPUs is unknown, no job with GPUs starts: {host.blind}"
        yield Check(name="GPUs", verdict="bad", text=text, mend="nvidia-smi; dmesg | grep -iE 'nvrm|xid'")
    for gpu in host.gpus:
        if gpu.reason:
            verdict: Verdict = "warn" if gpu.marks else "ok"
            mend = "" if not gpu.marks else _mend_gpu(gpu.index, gpu.marks, gpu.reason)
            yield Check(name=f"GPU{gpu.index}", verdict=verdict, text=gpu.reason, mend=mend)
    for cpus, who in sorted(host.foreign_cpus.items()):
        text = f"{who} is bound to CPUs {cpus} and uses them: no job gets them pinned"
        yield Check(name="CPUs", verdict="warn", text=text, mend="let it run on other CPUs, or end it")
    kept = sum(bool(gpu.marks) for gpu in host.gpus)
    if not kept and host.blind is None:
        yield Check(name="GPUs", verdict="ok", text=f"none of {_count(len(host.gpus), 'GPU')} is kept back")


def _mend_gpu(index: int, marks: list[str], reason: str) -> str:
    if "unhealthy" in marks:
        return f"do what it says, then: topoctl resume --gpu {index}"
    if marks == ["drained"]:
        return f"topoctl resume --gpu {index}"
    if not re.search(r"\bpid \d", reason):
        return "end who has it open (sudo fuser -v /dev/nvidia*), else reset the GPU; it comes back by itself"
    return "end the process that is named; the GPU comes back by itself"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"

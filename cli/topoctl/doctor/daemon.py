"""The topod or coordinator that answers: who it is, its groups, what it keeps back."""

import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from topoctl.doctor.check import PROBE_SECONDS, Check, Verdict, count
from topoctl.doctor.troubles import judged
from topod import __version__
from topod.errors import TopodError
from topod.protocol.client import Client, is_coordinators
from topod.protocol.replies import Host, Welcome
from topod.protocol.requests import GetHost, Hello

MAX_SOCKET_BYTES: Final = 100
"""As topod itself wants it: the kernel's limit is 107, the event stream's name is 7 longer."""


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


def groups(named: Mapping[str, list[str]]) -> Iterator[Check]:
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


def devices(path: Path) -> Iterator[Check]:
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
        yield Check(name="GPUs", verdict="ok", text=f"none of {count(len(host.gpus), 'GPU')} is kept back")


def _mend_gpu(index: int, marks: list[str], reason: str) -> str:
    if "unhealthy" in marks:
        return f"do what it says, then: topoctl resume --gpu {index}"
    if marks == ["drained"]:
        return f"topoctl resume --gpu {index}"
    if not re.search(r"\bpid \d", reason):
        return "end who has it open (sudo fuser -v /dev/nvidia*), else reset the GPU; it comes back by itself"
    return "end the process that is named; the GPU comes back by itself"

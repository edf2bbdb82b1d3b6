"""All that the doctor looks at, in the order in which a start of topod would meet it."""

import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from topoctl.doctor import kernel
from topoctl.doctor.check import Check
from topoctl.doctor.clock import coordinators_clock
from topoctl.doctor.daemon import check_daemon, devices, groups
from topoctl.doctor.engine import engine
from topoctl.doctor.files import configured, state, state_dir
from topoctl.doctor.gpus import gpus
from topod import __version__
from topod.protocol.client import find_socket


def checks(socket: Path | None, environ: Mapping[str, str]) -> Iterator[Check]:
    """Yield one finding after the other."""
    path = socket or find_socket()
    welcome, daemon = check_daemon(path)
    yield system()
    if welcome is None or not welcome.fleet:
        # A coordinator needs no GPUs and no engine: each of its hosts has a doctor of its own.
        yield from gpus(emulated=welcome is not None and welcome.emulated)
        yield kernel.sysfs()
        yield from kernel.memory()
        yield from engine(environ, welcome)
    yield kernel.time_sync()
    yield state(Path(welcome.state_dir), theirs=True) if welcome else state(state_dir(environ))
    yield from configured(environ)
    yield daemon
    if welcome is None or welcome.fleet:
        return
    yield from coordinators_clock(welcome)
    yield from groups(welcome.groups)
    yield from devices(path)


def system() -> Check:
    """Check the interpreter and the operating system."""
    text = f"Python {platform.python_version()}, topod {__version__}, {sys.platform} {platform.machine()}"
    if sys.platform != "linux":
        return Check(name="system", verdict="bad", text=text, mend="topod runs on Linux only")
    return Check(name="system", verdict="ok", text=text)

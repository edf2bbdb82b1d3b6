"""The steps of `topoctl uninstall`: services end first, then their files go; what somebody wrote stays."""

from pathlib import Path

from topoctl.install.files import Found, look, remove
from topoctl.install.installing import need_no_package
from topoctl.install.parts import COORDINATOR, HOST, SHARED, part
from topoctl.install.steps import Step, System

SERVICES = ("topod.service", "topod-coordinator.service")
KEPT = (
    "/etc/topod",
    "/var/lib/topod",
    "/var/lib/topod-coordinator",
)
"""Configuration and keys, and the states."""
RUN = ("/run/topod", "/run/topod-coordinator")
PURGED = (*KEPT, *RUN)


def steps(system: System, programs: Path, *, purge: bool) -> list[Step]:
    """Return what undoes `topoctl install`. Raises `ConflictError` for what is a package's to undo."""
    files = {**COORDINATOR, **HOST, **SHARED}
    if purge or not any(system.path(path).exists() for path in (COORDINATOR | HOST).values()):
        need_no_package(system)
    found = [
        step for name, path in files.items() for step in _file(system, path, part(name, programs), purge)
    ]
    stops = []
    for unit in SERVICES:
        if system.path((COORDINATOR | HOST)[unit]).exists():
            now = ["--now"] if system.live else []
            stops.append(system.run("systemctl", "--quiet", "disable", *now, unit, of_it="it stops"))
    reload = [system.run("systemctl", "daemon-reload", of_it="systemd forgets the units")]
    gone = [step for path in PURGED for step in _purged(system, path)] if purge else []
    return [*stops, *found, *gone, *(reload if system.live else [])]


def remains(system: System) -> list[str]:
    """Return what is still there afterwards, each with the words that tell it."""
    lines = [f"{path}" for path in KEPT if system.path(path).exists()]
    files = {**COORDINATOR, **HOST, **SHARED}.values()
    lines += [f"{path} (changed by somebody)" for path in files if system.path(path).exists()]
    lines += [
        f"{path}.d (your drop-ins)"
        for path in (COORDINATOR | HOST).values()
        if system.path(f"{path}.d").exists()
    ]
    return lines


def _file(system: System, path: str, text: str, purge: bool) -> list[Step]:
    target = system.path(path)
    match look(target, text):
        case Found.NOTHING:
            return []
        case Found.CHANGED if not purge:
            return [Step(verb="keep", what=str(target), of_it="somebody changed it")]
        case _:
            return [Step(verb="remove", what=str(target), act=lambda: remove(target))]


def _purged(system: System, path: str) -> list[Step]:
    target = system.path(path)
    if not target.exists():
        return []
    return [Step(verb="remove", what=str(target), of_it="with all in it", act=lambda: remove(target))]

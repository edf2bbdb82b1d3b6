"""The files of topod: its state, its configuration, its keys; who may read and write them."""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from topoctl.doctor.check import Check, count
from topod.adapters.curve_keys import read_private
from topod.errors import NotAllowedError, NotFoundError, TopodError
from topod.protocol.curve import Kind
from topod.shell.config_file import ConfigFile
from topod.shell.config_reading import DEFAULT_PATH, load_config
from topod.shell.fleet_config import FleetSection

LOW_DISK_BYTES: Final = 1 << 30
AS_ROOT: Final = "sudo topoctl doctor"


def state_dir(environ: Mapping[str, str]) -> Path:
    """Return where topod of this user keeps its state: the same rule as topod's own."""
    if environ.get("TOPOD_STATE_DIR"):
        return Path(environ["TOPOD_STATE_DIR"])
    if os.geteuid() == 0:
        return Path("/var/lib/topod")
    home = environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "topod"


def state(path: Path, *, theirs: bool = False) -> Check:
    """Check where topod keeps its state; `theirs`: a topod that answers has it, whoever that one is."""
    there = next((parent for parent in (path, *path.parents) if _is_folder(parent)), Path("/"))
    if not theirs and not os.access(there, os.W_OK | os.X_OK):
        text = f"{path}: no permission to write in {there}"
        return Check(name="state", verdict="bad", text=text, mend="topod --state-dir DIR")
    usage = shutil.disk_usage(there)
    made = "" if there == path or theirs else ", will be made"
    text = f"{path}{made}, {usage.free / (1 << 30):.0f} GiB free"
    if usage.free < LOW_DISK_BYTES:
        return Check(name="state", verdict="warn", text=f"{text}: logs may fill it", mend=f"df -h {there}")
    open_to = stat.S_IMODE(path.stat().st_mode) & 0o077 if there == path else 0
    if open_to:
        text = f"{text}; others may enter it: the output of everybody's jobs lies there"
        return Check(name="state", verdict="warn", text=text, mend=f"chmod 700 {path}")
    return Check(name="state", verdict="ok", text=text)


def configured(environ: Mapping[str, str]) -> Iterator[Check]:
    """Check the configuration that a start would read, and the keys that it names."""
    named = environ.get("TOPOD_CONFIG")
    try:
        loaded = load_config(Path(named) if named else None)
    except TopodError as error:
        yield _unreadable(Path(named) if named else DEFAULT_PATH, error)
        return
    if not loaded.files:
        yield Check(name="config", verdict="ok", text=f"no {DEFAULT_PATH}: everything has its default")
        return
    yield Check(name="config", verdict="ok", text=f"{', '.join(loaded.files)} can be read")
    yield from _keys(loaded.config)


def _keys(config: ConfigFile) -> Iterator[Check]:
    if config.fleet.coordinator:
        yield key(Path(config.fleet.key_file), Kind.HOST)
        yield from _coordinators_line(config.fleet)
    private = Path(config.coordinator.key_file)
    if _exists(private):
        yield key(private, Kind.COORDINATOR)
        yield authorized(Path(config.coordinator.authorized_keys))


def key(path: Path, kind: Kind) -> Check:
    """Check a private key: there, of the right kind, closed to others."""
    name = f"{kind} key"
    try:
        read_private(path, kind)
    except NotFoundError as error:
        return Check(
            name=name, verdict="bad", text=error.message, mend=f"topoctl keys new NAME --{kind} --out {path}"
        )
    except NotAllowedError as error:
        # Closed to us is as it should be; open to others is not.
        if error.hint:
            return Check(name=name, verdict="bad", text=error.message, mend=error.hint)
        return Check(name=name, verdict="ok", text=f"{path}: only its owner can read it", mend=AS_ROOT)
    except TopodError as error:
        return Check(
            name=name, verdict="bad", text=error.message, mend=error.hint or f"topoctl keys show {path}"
        )
    return Check(name=name, verdict="ok", text=f"{path}: a {kind}'s, and only its owner can read it")


def authorized(path: Path) -> Check:
    """Check the file of those whom a coordinator lets in."""
    from topod.adapters.authorized import read_authorized

    name = "authorized"
    try:
        entries = read_authorized(path)
    except TopodError as error:
        if _exists(path) and not os.access(path, os.R_OK):
            return Check(name=name, verdict="ok", text=f"{path}: only its owner can read it", mend=AS_ROOT)
        return Check(name=name, verdict="bad", text=error.message, mend=error.hint or f"mend {path}")
    hosts = sum(entry.kind is Kind.HOST for entry in entries.values())
    text = f"{path}: {count(hosts, 'host')}, {count(len(entries) - hosts, 'user')}"
    return Check(name=name, verdict="ok", text=text)


def _coordinators_line(section: FleetSection) -> Iterator[Check]:
    """Tell of a key that does not fit the coordinators that are named."""
    from topod.shell.fleet_config import remote_of

    try:
        remote_of(section)
    except TopodError:
        return  # the host's own key, told already
    except ValueError as error:
        mend = "mend [fleet] in the configuration"
        yield Check(name="coordinator", verdict="bad", text=str(error), mend=mend)


def _unreadable(path: Path, error: TopodError) -> Check:
    if not os.access(path, os.R_OK) and _exists(path):
        return Check(name="config", verdict="warn", text=f"{path} cannot be read by you", mend=AS_ROOT)
    return Check(
        name="config",
        verdict="bad",
        text=error.message,
        mend="topod does not start with it; `topoctl config check` names every mistake",
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:
        return False

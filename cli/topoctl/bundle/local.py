"""What this machine tells for a bug report, whether topod runs or not.

Rule: everything ends in time and is bounded in bytes; what cannot be had is said, never raised.
"""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Final

from topod import __version__
from topod.errors import TopodError

MAX_BYTES: Final = 8 << 20
"""Of one part; of more the end is kept."""
SECONDS: Final = 15.0
PACKAGES: Final = (
    "aetcd",
    "docker",
    "grpcio",
    "msgspec",
    "numpy",
    "nvidia-ml-py",
    "prometheus-client",
    "psutil",
    "pyyaml",
    "pyzmq",
    "textual",
    "typer",
)


class NotHadError(Exception):
    """A part could not be had; the message says why."""


def versions() -> dict[str, object]:
    """Return the versions of all that takes part."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    release = {}
    with contextlib.suppress(OSError):
        release = platform.freedesktop_os_release()
    return {
        "topoctl": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "system": release.get("PRETTY_NAME", ""),
        "cpus": os.cpu_count(),
        "user_is_root": os.geteuid() == 0,
        "packages": found,
    }


def run(*words: str, seconds: float = SECONDS) -> str:
    """Return what a command prints. Raises `NotHadError`. One that does not die is left behind."""
    try:
        process = subprocess.Popen(  # noqa: S603 - fixed commands, no shell
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"LC_ALL": "C", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
        )
    except FileNotFoundError:
        raise NotHadError(f"{words[0]} is not installed") from None
    except OSError as error:
        raise NotHadError(f"{words[0]} cannot be started: {error.strerror}") from None
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise NotHadError(f"`{' '.join(words)}` did not end within {seconds:g} s") from None
    text = output[-MAX_BYTES:].decode(errors="replace")
    if process.returncode != 0:
        first = next((line.strip() for line in text.splitlines() if line.strip()), "no message")
        raise NotHadError(f"`{' '.join(words)}` failed with status {process.returncode}: {first[:200]}")
    return text


def journal(unit: str, lines: int) -> str:
    """Return the end of a unit's log. Raises `NotHadError`."""
    text = run("journalctl", "--no-pager", "-o", "short-iso", "-n", str(lines), "-u", unit)
    if not text.strip() or text.strip() == "-- No entries --":
        raise NotHadError(f"the journal has nothing of {unit}; --log FILE names a log elsewhere")
    return text


def tail(path: Path) -> str:
    """Return the end of a file. Raises `NotHadError`."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_BYTES))
            return file.read(MAX_BYTES).decode(errors="replace")
    except OSError as error:
        raise NotHadError(f"{path} cannot be read: {error.strerror}") from None


def folder(path: Path) -> str:
    """Return what lies in a folder, with sizes and modes; nothing of what is in the files."""
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        raise NotHadError(f"{path} cannot be read: {error.strerror}") from None
    lines = []
    for entry in entries[:1000]:
        with contextlib.suppress(OSError):
            found = entry.stat(follow_symlinks=False)
            kind = "/" if entry.is_dir(follow_symlinks=False) else ""
            lines.append(
                f"{found.st_mode & 0o7777:04o} {found.st_uid:6} {found.st_size:12} {entry.name}{kind}"
            )
    return "\n".join([f"{path}: {len(entries)} entries (mode, owner, bytes, name)", *lines]) + "\n"


def topology() -> object:
    """Return this machine as topod would find it now, as a host document. Raises `NotHadError`."""
    import msgspec

    from topod.adapters.host_discovery import discover_host
    from topod.discovery.document import dump_host
    from topod.model.occupancy import Occupancy

    try:
        return msgspec.json.decode(dump_host(discover_host(timeout=SECONDS).topology, Occupancy()))
    except TopodError as error:
        raise NotHadError(error.message) from None


def scraped(url: str) -> str:
    """Return the metrics. Raises `NotHadError`."""
    # Never through a proxy: it is this machine's own.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=SECONDS) as reply:
            text: bytes = reply.read(MAX_BYTES)
    except OSError as error:
        raise NotHadError(f"{url} does not answer: {error}") from None
    return text.decode(errors="replace")

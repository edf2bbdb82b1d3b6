"""The settings of a coordinator: flags, else variables, else its section of the file, else defaults."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from topod import __version__
from topod.errors import UsageError
from topod.protocol.client import COORDINATOR_SOCKET, SYSTEM_SOCKET
from topod.shell.config_file import ConfigFile
from topod.shell.config_reading import read_config
from topod.shell.metrics.port import FLAG, METAVAR, place_of

LEVELS = ("debug", "info", "warning", "error")
SYSTEM_STATE = Path("/var/lib/topod-coordinator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one coordinator runs."""

    state_dir: Path
    socket: Path
    listen: str
    key_file: Path
    authorized_keys: Path
    lease_seconds: float = 60.0
    spread: bool = False
    log_format: str = "text"
    log_level: str = "info"
    metrics: tuple[str, int] | None = None
    """Address and port for Prometheus; None: off."""
    config: Path | None = None
    """The configuration file that was named; None: the default one."""
    file: ConfigFile = field(default_factory=ConfigFile)
    crash_at: int | None = None
    """See `topod.shell.faults`."""


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings; a flag wins over its variable. Exits as argparse does on `--help` and wrong flags.

    Raises `UsageError` for a wrong value, `DataError` for a wrong configuration file.
    """
    given = _parser(environ).parse_args(arguments)
    for name, value, allowed in (
        ("log-format", given.log_format, ("text", "json")),
        ("log-level", given.log_level, LEVELS),
    ):
        if value not in allowed:
            raise UsageError(f"--{name} is one of {', '.join(allowed)}, not {value!r}")
    path = Path(given.config).absolute() if given.config else None
    file = read_config(path)
    said = file.coordinator
    state_dir = given.state_dir or said.state_dir or _default_state_dir(environ)
    return Settings(
        state_dir=Path(state_dir).absolute(),
        socket=Path(given.socket or said.socket or _default_socket(environ)).absolute(),
        listen=given.listen or said.listen,
        key_file=Path(given.key_file or said.key_file).absolute(),
        authorized_keys=Path(given.authorized_keys or said.authorized_keys).absolute(),
        lease_seconds=float(said.lease_seconds),
        spread=said.placing == "spread",
        log_format=given.log_format,
        log_level=given.log_level,
        metrics=place_of(given.metrics, said.metrics),
        config=path,
        file=file,
        crash_at=None if given.crash_at is None else int(given.crash_at),
    )


def _default_state_dir(environ: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return SYSTEM_STATE
    home = environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "topod-coordinator"


def _default_socket(environ: Mapping[str, str]) -> Path:
    """Return a socket that is no host's: both may run on one machine."""
    if os.geteuid() == 0:
        return SYSTEM_SOCKET.parent.with_name("topod-coordinator") / COORDINATOR_SOCKET
    runtime = environ.get("XDG_RUNTIME_DIR")
    return (Path(runtime) / "topod" if runtime else Path.home() / ".topod") / COORDINATOR_SOCKET


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="topod-coordinator",
        description="Gives the jobs of a fleet to its hosts; topoctl talks to it as to a host.",
        epilog="Each option can be given as a variable too: --listen as TOPOD_COORDINATOR_LISTEN, and so on.",
    )

    def option(name: str, text: str, default: str | None = None, metavar: str | None = None) -> None:
        variable = "TOPOD_COORDINATOR_" + name.upper().replace("-", "_")
        parser.add_argument(f"--{name}", help=text, default=environ.get(variable) or default, metavar=metavar)

    option("config", "the configuration file; default: /etc/topod/topod.toml where it exists", None, "FILE")
    option("listen", "where hosts and users reach it: tcp://ADDRESS:PORT", None, "TCP")
    option("state-dir", "where it keeps its state", None, "DIR")
    option("socket", "where it listens on this machine", None, "PATH")
    option("key-file", "its private key", None, "FILE")
    option("authorized-keys", "the file of keys that may connect", None, "FILE")
    option("log-format", "text or json", "text", "FORMAT")
    option("log-level", "debug, info, warning or error", "info", "LEVEL")
    option("metrics", FLAG, None, METAVAR)
    option("crash-at", argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"topod-coordinator {__version__}")
    return parser

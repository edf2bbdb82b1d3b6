"""The settings of topod: flags, else TOPOD_* variables, else defaults by user."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from topod import __version__
from topod.errors import UsageError
from topod.protocol.client import default_socket
from topod.shell.config_file import ConfigFile
from topod.shell.config_reading import read_config
from topod.shell.metrics.port import FLAG, METAVAR, place_of

RUNTIMES = ("auto", "docker", "process")
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one topod runs."""

    state_dir: Path
    socket: Path
    host: str | None = None
    """An emulated host by name, or a file; None: discover this machine."""
    runtime: str = "auto"
    engine: str | None = None
    engine_seconds: float = 15.0
    """How long the engine may take to answer; create, start and remove get eight times as much."""
    emulated_faults: Path | None = None
    """What goes wrong on an emulated host; see `topod.adapters.emulated_faults`."""
    rediscover: bool = False
    """Forget the GPUs that this machine had before."""
    log_format: str = "text"
    log_level: str = "info"
    devices_free_seconds: float = 30.0
    metrics: tuple[str, int] | None = None
    """Address and port for Prometheus; None: off."""
    config: Path | None = None
    """The configuration file that was named; None: the default one."""
    file: ConfigFile = field(default_factory=ConfigFile)
    """The configuration file."""
    crash_at: int | None = None
    """See `topod.shell.faults`."""


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """Return where topod keeps its state unless told otherwise, by user."""
    if os.geteuid() == 0:
        return Path("/var/lib/topod")
    home = environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "topod"


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings; a flag wins over its variable. Exits as argparse does on `--help` and wrong flags.

    Raises `UsageError` for a wrong value in a variable, `DataError` for a wrong configuration file.
    """
    given = _parser(environ).parse_args(arguments)
    for name, value, allowed in (
        ("runtime", given.runtime, RUNTIMES),
        ("log-format", given.log_format, ("text", "json")),
        ("log-level", given.log_level, LEVELS),
    ):
        if value not in allowed:
            raise UsageError(f"--{name} is one of {', '.join(allowed)}, not {value!r}")
    config = Path(given.config).absolute() if given.config else None
    file = read_config(config)
    return Settings(
        state_dir=Path(given.state_dir or default_state_dir(environ)).absolute(),
        socket=Path(given.socket or default_socket()).absolute(),
        host=given.host or None,
        runtime=given.runtime,
        engine=given.engine or None,
        engine_seconds=_number("engine-seconds", given.engine_seconds),
        emulated_faults=Path(given.emulated_faults).absolute() if given.emulated_faults else None,
        rediscover=given.rediscover,
        log_format=given.log_format,
        log_level=given.log_level,
        devices_free_seconds=_number("devices-free-seconds", given.devices_free_seconds),
        metrics=place_of(given.metrics, file.metrics.listen),
        config=config,
        file=file,
        crash_at=None if given.crash_at is None else int(_number("crash-at", given.crash_at)),
    )


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="topod",
        description="Schedules GPU jobs on this host by its topology; topoctl talks to it.",
        epilog="Each option can be given as a variable too: --state-dir as TOPOD_STATE_DIR, and so on.",
    )

    def option(name: str, text: str | None, default: str | None = None, metavar: str | None = None) -> None:
        variable = "TOPOD_" + name.upper().replace("-", "_")
        text = argparse.SUPPRESS if text is None else text
        value = environ.get(variable) or default
        parser.add_argument(f"--{name}", help=text, default=value, metavar=metavar)

    option(
        "host", "emulate this host: a name of the library or a file; default: this machine", None, "NAME|FILE"
    )
    option("config", "the configuration file; default: /etc/topod/topod.toml where it exists", None, "FILE")
    option("state-dir", "where topod keeps its state and the jobs' logs", None, "DIR")
    option("socket", "where topod listens", None, "PATH")
    option("runtime", "auto, docker or process; auto: docker where an engine answers", "auto", "NAME")
    option("engine", "URL of the container engine; default: DOCKER_HOST, else the usual sockets", None, "URL")
    option("engine-seconds", "how long the engine may take to answer one question", "15", "SECONDS")
    option("emulated-faults", "with --host: a file of faults to emulate, read on every change", None, "FILE")
    option("log-format", "text or json", "text", "FORMAT")
    option("log-level", "debug, info, warning or error", "info", "LEVEL")
    option("metrics", FLAG, None, METAVAR)
    option("devices-free-seconds", "how long GPUs may take to become really free", "30", "SECONDS")
    option("crash-at", None)
    text = "take the host as it is found now, without GPUs that it had before"
    parser.add_argument("--rediscover", help=text, action="store_true")
    parser.add_argument("--version", action="version", version=f"topod {__version__}")
    return parser


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"--{name} is a number, not {text!r}") from None
    if not 0 < value < float("inf"):
        raise UsageError(f"--{name} is above 0, not {text}")
    return value

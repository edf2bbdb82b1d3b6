"""The settings of topod: flags, else TOPOD_* variables, else defaults by user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from topod.errors import UsageError
from topod.shell.config_file import ConfigFile
from topod.shell.config_reading import Loaded, load_config
from topod.shell.configured import Configured
from topod.shell.metrics.port import place_of
from topod.shell.options import HOST, read_given

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
    file: ConfigFile = field(default_factory=ConfigFile)
    """The configuration, as it was at the start."""
    configured: Configured = field(
        default_factory=lambda: Configured(None, Loaded(), read_given(HOST, (), {})), repr=False
    )
    """Where all of it is from."""
    crash_at: int | None = None
    """See `topod.shell.faults`."""


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings; a flag wins over its variable. Exits as argparse does on `--help` and wrong flags.

    Raises `UsageError` for a wrong value in a variable, `DataError` for a wrong configuration file.
    """
    given = read_given(HOST, arguments, environ)
    said = {name: value or "" for name, value in given.values.items()}
    for name, allowed in (("runtime", RUNTIMES), ("log-format", ("text", "json")), ("log-level", LEVELS)):
        if said[name] not in allowed:
            raise UsageError(f"--{name} is one of {', '.join(allowed)}, not {said[name]!r}")
    config = Path(said["config"]).absolute() if said["config"] else None
    loaded = load_config(config)
    return Settings(
        state_dir=given.path("state-dir"),
        socket=given.path("socket"),
        host=said["host"] or None,
        runtime=said["runtime"],
        engine=said["engine"] or None,
        engine_seconds=_number("engine-seconds", said["engine-seconds"]),
        emulated_faults=Path(said["emulated-faults"]).absolute() if said["emulated-faults"] else None,
        rediscover="rediscover" in given.flags,
        log_format=said["log-format"],
        log_level=said["log-level"],
        devices_free_seconds=_number("devices-free-seconds", said["devices-free-seconds"]),
        metrics=place_of(given.values["metrics"], loaded.config.metrics.listen),
        file=loaded.config,
        configured=Configured(config, loaded, given),
        crash_at=int(_number("crash-at", said["crash-at"])) if said["crash-at"] else None,
    )


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"--{name} is a number, not {text!r}") from None
    if not 0 < value < float("inf"):
        raise UsageError(f"--{name} is above 0, not {text}")
    return value

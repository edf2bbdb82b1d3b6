"""The settings of a coordinator: flags, else variables, else its section of the file, else defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from topod.errors import UsageError
from topod.shell.config_file import ConfigFile
from topod.shell.config_reading import Loaded, load_config
from topod.shell.configured import Configured
from topod.shell.metrics.port import place_of
from topod.shell.options import COORDINATOR, read_given

LEVELS = ("debug", "info", "warning", "error")


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
    file: ConfigFile = field(default_factory=ConfigFile)
    """The configuration, as it was at the start."""
    configured: Configured = field(
        default_factory=lambda: Configured(None, Loaded(), read_given(COORDINATOR, (), {})), repr=False
    )
    """Where all of it is from."""
    crash_at: int | None = None
    """See `topod.shell.faults`."""


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings; a flag wins over its variable. Exits as argparse does on `--help` and wrong flags.

    Raises `UsageError` for a wrong value, `DataError` for a wrong configuration file.
    """
    given = read_given(COORDINATOR, arguments, environ)
    values = {name: value or "" for name, value in given.values.items()}
    for name, allowed in (("log-format", ("text", "json")), ("log-level", LEVELS)):
        if values[name] not in allowed:
            raise UsageError(f"--{name} is one of {', '.join(allowed)}, not {values[name]!r}")
    path = Path(values["config"]).absolute() if values["config"] else None
    loaded = load_config(path)
    said = loaded.config.coordinator
    return Settings(
        state_dir=given.path("state-dir", said.state_dir),
        socket=given.path("socket", said.socket),
        listen=values["listen"] or said.listen,
        key_file=Path(values["key-file"] or said.key_file).absolute(),
        authorized_keys=Path(values["authorized-keys"] or said.authorized_keys).absolute(),
        lease_seconds=float(said.lease_seconds),
        spread=said.placing == "spread",
        log_format=values["log-format"],
        log_level=values["log-level"],
        metrics=place_of(given.values["metrics"], said.metrics),
        file=loaded.config,
        configured=Configured(path, loaded, given),
        crash_at=int(values["crash-at"]) if values["crash-at"] else None,
    )

"""The options of the daemons, each of which is a variable too, and what each of them was given.

Rule: an option wins over its variable, that over the files, those over the default.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from topod import __version__
from topod.protocol.client import COORDINATOR_SOCKET, SYSTEM_SOCKET, default_socket
from topod.shell.metrics.port import FLAG, METAVAR

DEFAULT: Final = "default"
RULES: Final[Mapping[str, frozenset[str]]] = {
    "fairness": frozenset(),
    "quota": frozenset(),
    "budget": frozenset(),
}
"""What every daemon takes at a reload, by section; no keys: the whole section."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """`--name`; also the variable of that name."""

    name: str
    text: str | None
    """None: not for users."""
    metavar: str | None = None
    default: str | None = None
    key: str = ""
    """The key of the configuration that it wins over, as `section.key`."""
    fallback: Callable[[Mapping[str, str]], Path] | None = None
    """The default where it depends on the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A daemon: its options, and what of the configuration is its business."""

    name: str
    description: str
    prefix: str
    """Of its variables."""
    example: str
    options: tuple[Option, ...]
    flags: Mapping[str, str] = field(default_factory=dict)
    """Options without a value, with their help."""
    foreign: frozenset[str] = frozenset()
    """Sections, and sections of sections, that it never reads."""
    live: Mapping[str, frozenset[str]] = field(default_factory=lambda: RULES)
    """What it takes at a reload, by section; no keys: the whole section."""

    def variable(self, option: Option) -> str:
        """Return the name of an option's variable."""
        return self.prefix + option.name.upper().replace("-", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a program was given: by option name, and from where."""

    program: Program
    values: Mapping[str, str | None]
    """The default included."""
    origins: Mapping[str, str]
    flags: frozenset[str] = frozenset()
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def path(self, name: str, said: str = "") -> Path:
        """Return what is given, else what the configuration `said`, else the default of this user."""
        text = self.values[name] or said
        option = next(option for option in self.program.options if option.name == name)
        assert option.fallback is not None
        return Path(text).absolute() if text else option.fallback(self.environ).absolute()


def read_given(program: Program, arguments: Sequence[str], environ: Mapping[str, str]) -> Given:
    """Return what the command line and the variables say; exits as argparse does on `--help` and mistakes."""
    parser = argparse.ArgumentParser(
        prog=program.name,
        description=program.description,
        epilog=f"Each option can be given as a variable too: {program.example}, and so on.",
    )
    for option in program.options:
        text = argparse.SUPPRESS if option.text is None else option.text
        parser.add_argument(f"--{option.name}", help=text, metavar=option.metavar)
    for name, text in program.flags.items():
        parser.add_argument(f"--{name}", help=text, action="store_true")
    parser.add_argument("--version", action="version", version=f"{program.name} {__version__}")
    said = vars(parser.parse_args(arguments))
    values: dict[str, str | None] = {}
    origins: dict[str, str] = {}
    for option in program.options:
        given, variable = said[option.name.replace("-", "_")], program.variable(option)
        inherited = environ.get(variable)
        values[option.name] = given if given is not None else inherited or option.default
        origins[option.name] = (
            f"--{option.name}" if given is not None else f"${variable}" if inherited else DEFAULT
        )
    flags = frozenset(name for name in program.flags if said[name.replace("-", "_")])
    return Given(program=program, values=values, origins=origins, flags=flags, environ=environ)


def default_state_dir(environ: Mapping[str, str], name: str = "topod") -> Path:
    """Return where a daemon keeps its state unless told otherwise, by user."""
    if os.geteuid() == 0:
        return Path("/var/lib") / name
    home = environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / name


def default_coordinator_socket(environ: Mapping[str, str]) -> Path:
    """Return a socket that is no host's: both may run on one machine."""
    if os.geteuid() == 0:
        return SYSTEM_SOCKET.parent.with_name("topod-coordinator") / COORDINATOR_SOCKET
    runtime = environ.get("XDG_RUNTIME_DIR")
    return (Path(runtime) / "topod" if runtime else Path.home() / ".topod") / COORDINATOR_SOCKET


_CONFIG: Final = Option(
    name="config",
    text="the configuration file; default: /etc/topod/topod.toml where it exists",
    metavar="FILE",
)
_LOG: Final = (
    Option(name="log-format", text="text or json", default="text", metavar="FORMAT"),
    Option(name="log-level", text="debug, info, warning or error", default="info", metavar="LEVEL"),
)
_CRASH: Final = Option(name="crash-at", text=None)

HOST: Final = Program(
    name="topod",
    description="Schedules GPU jobs on this host by its topology; topoctl talks to it.",
    prefix="TOPOD_",
    example="--state-dir as TOPOD_STATE_DIR",
    options=(
        Option(
            name="host",
            text="emulate this host: a name of the library or a file; default: this machine",
            metavar="NAME|FILE",
        ),
        _CONFIG,
        Option(
            name="state-dir",
            text="where topod keeps its state and the jobs' logs",
            metavar="DIR",
            fallback=default_state_dir,
        ),
        Option(
            name="socket", text="where topod listens", metavar="PATH", fallback=lambda _: default_socket()
        ),
        Option(
            name="runtime",
            text="auto, docker or process; auto: docker where an engine answers",
            default="auto",
            metavar="NAME",
        ),
        Option(
            name="engine",
            text="URL of the container engine; default: DOCKER_HOST, else the usual sockets",
            metavar="URL",
        ),
        Option(
            name="engine-seconds",
            text="how long the engine may take to answer one question",
            default="15",
            metavar="SECONDS",
        ),
        Option(
            name="emulated-faults",
            text="with --host: a file of faults to emulate, read on every change",
            metavar="FILE",
        ),
        *_LOG,
        Option(name="metrics", text=FLAG, metavar=METAVAR, key="metrics.listen"),
        Option(
            name="devices-free-seconds",
            text="how long GPUs may take to become really free",
            default="30",
            metavar="SECONDS",
        ),
        _CRASH,
    ),
    flags={"rediscover": "take the host as it is found now, without GPUs that it had before"},
    foreign=frozenset({"coordinator", "store"}),
    live={**RULES, "logs": frozenset({"keep_days", "keep_bytes"}), "history": frozenset()},
)
COORDINATOR: Final = Program(
    name="topod-coordinator",
    description="Gives the jobs of a fleet to its hosts; topoctl talks to it as to a host.",
    prefix="TOPOD_COORDINATOR_",
    example="--listen as TOPOD_COORDINATOR_LISTEN",
    options=(
        _CONFIG,
        Option(
            name="listen",
            text="where hosts and users reach it: tcp://ADDRESS:PORT",
            metavar="TCP",
            key="coordinator.listen",
        ),
        Option(
            name="state-dir",
            text="where it keeps its state",
            metavar="DIR",
            key="coordinator.state_dir",
            fallback=lambda environ: default_state_dir(environ, "topod-coordinator"),
        ),
        Option(
            name="socket",
            text="where it listens on this machine",
            metavar="PATH",
            key="coordinator.socket",
            fallback=default_coordinator_socket,
        ),
        Option(name="key-file", text="its private key", metavar="FILE", key="coordinator.key_file"),
        Option(
            name="authorized-keys",
            text="the file of keys that may connect",
            metavar="FILE",
            key="coordinator.authorized_keys",
        ),
        *_LOG,
        Option(name="metrics", text=FLAG, metavar=METAVAR, key="coordinator.metrics"),
        _CRASH,
    ),
    foreign=frozenset({"fleet", "health", "logs", "metrics", "security.jobs"}),
)

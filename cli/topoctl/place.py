"""Whom topoctl asks: a topod on this machine by its socket, or a fleet's coordinator by the network."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import typer

from topod.errors import DataError, NotAllowedError, NotFoundError, UsageError
from topod.protocol.remote import Remote, coordinators

SITE_FILE: Final = Path("/etc/topod/client.toml")
KEYS: Final = ("coordinator", "key", "coordinator-key")


def place(ctx: typer.Context) -> Path | Remote | None:
    """Return whom the options, the environment or the client's files name; None: the usual sockets."""
    options: Mapping[str, str | None] = ctx.obj or {}
    return find_place(options, os.environ)


def find_place(
    options: Mapping[str, str | None], environ: Mapping[str, str], site: Path = SITE_FILE
) -> Path | Remote | None:
    """Return whom to ask: options go before variables, these before the user's file, that before the site's.

    Raises `UsageError`, `DataError`, and what the files of keys may raise.
    """
    socket, coordinator = options.get("socket"), options.get("coordinator")
    if socket and coordinator:
        raise UsageError("--socket names a topod on this machine, --coordinator one elsewhere: which one?")
    if socket:
        return Path(socket)
    if not coordinator and environ.get("TOPOD_SOCKET"):
        if environ.get("TOPOD_COORDINATOR"):
            raise UsageError(
                "both TOPOD_SOCKET and TOPOD_COORDINATOR are set: which one?",
                hint="unset one, or name it with --socket or --coordinator",
            )
        return None
    said = {name: value for name in KEYS if (value := options.get(name.replace("-", "_")))}
    said = {**_of_environment(environ), **said}
    own = _own_folder(environ)
    for file in (own / "client.toml", site):
        said = {**_read(file), **said}
    if "coordinator" not in said:
        return None
    return _remote(said, own / "user.key")


def _remote(said: Mapping[str, str], usual_key: Path) -> Remote:
    from topod.adapters.curve_keys import read_private
    from topod.protocol.curve import Kind

    where = said["coordinator"]
    if "coordinator-key" not in said:
        hint = "--coordinator-key KEY-or-FILE; `topoctl keys show` prints it on the coordinator"
        raise UsageError(f"the key of the coordinator at {where} is not known here", hint=hint)
    if "key" not in said and not usual_key.exists():
        hint = f"topoctl keys new YOU --out {usual_key}; its public line is for the administrator"
        raise UsageError(f"a coordinator asks for a key, and there is none at {usual_key}", hint=hint)
    known = ",".join(map(_public, said["coordinator-key"].split(",")))
    try:
        found = coordinators(where, known)
    except ValueError as error:
        raise UsageError(str(error)) from None
    key = Path(said["key"]).expanduser() if "key" in said else usual_key
    return Remote(coordinators=found, keys=read_private(key, Kind.USER))


def _public(text: str) -> str:
    """Return the line of a coordinator's key, given as that or as the file that holds it."""
    from topod.adapters.curve_keys import public_line, read_key_file

    word = text.strip()
    if word.startswith("topod-"):
        return word
    try:
        return public_line(read_key_file(Path(word).expanduser()))
    except NotFoundError as error:
        hint = "ask the administrator: `topoctl keys show` prints it on the coordinator"
        raise NotFoundError(f"{error.message} (the coordinator's public key)", hint=hint) from None


def _of_environment(environ: Mapping[str, str]) -> dict[str, str]:
    found = {name: environ.get("TOPOD_" + name.upper().replace("-", "_")) for name in KEYS}
    return {name: value for name, value in found.items() if value}


def _own_folder(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path("~/.config").expanduser()) / "topod"


def _read(path: Path) -> dict[str, str]:
    """Return what a client's file says; nothing where there is none. A list becomes text with commas."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError:
        raise NotAllowedError(f"no permission to read {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", source=str(path)) from None
    import tomllib

    try:
        plain = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not TOML: {error}", source=str(path)) from None
    return {name: _text(name, value, path) for name, value in plain.items()}


def _text(name: str, value: Any, path: Path) -> str:
    if name not in KEYS:
        raise DataError(f"unknown key: {name[:40]!r}", source=str(path), hint=f"known: {', '.join(KEYS)}")
    words = value if isinstance(value, list) and name != "key" else [value]
    if not words or not all(isinstance(word, str) and word for word in words):
        raise DataError(f"{name}: must be text", source=str(path))
    return ",".join(words)

"""`topoctl support-bundle`: what a bug report needs, in one file, without secrets."""

import io
import os
import platform
import tarfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from topoctl.place import place
from topoctl.session import note, show
from topod.errors import ConflictError, StoreError
from topod.protocol.client import Client
from topod.protocol.remote import Remote

EXAMPLES = """
topoctl support-bundle
topoctl support-bundle --out bug.tar.gz --log /var/log/topod.log
tar -xzOf topod-support-*.tar.gz --wildcards '*/README.txt'
"""


def support_bundle(
    ctx: typer.Context,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Default: topod-support-HOST-TIME.tar.gz, here.", show_default=False
        ),
    ] = None,
    log: Annotated[
        list[Path] | None,
        typer.Option(
            "--log", metavar="FILE", help="topod's log, where it is not in the journal.", show_default=False
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="topod's configuration file.", show_default=False),
    ] = None,
) -> None:
    """Gather what a bug report needs, without secrets.

    Versions, doctor, configuration, topology, nvidia-smi, state, queue, last events, log and metrics; what
    cannot be had is named. Also where topod does not answer. Look through it before you send it.
    """
    from topoctl.bundle.gather import Parts, gather_answers, gather_machine
    from topoctl.doctor.files import state_dir

    where = place(ctx)
    name = f"topod-support-{platform.node() or 'host'}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    path = out or Path(f"{name}.tar.gz")
    parts = Parts()
    host = (ctx.obj or {}).get("host") or ""
    welcome = gather_answers(parts, lambda: Client(where, host=host), through_fleet=bool(host))
    # Who asks a coordinator may sit at any machine: what that one has is nobody's matter.
    if isinstance(where, Remote) or host:
        from topoctl.bundle.local import versions

        parts.json("versions.json", versions)
    else:
        gather_machine(
            parts,
            welcome,
            logs=log or (),
            config=config,
            doctor=partial(_doctor, where),
            state_dir=state_dir(os.environ),
        )
    _write(path, name, parts.files())
    for part, why in sorted(parts.missing.items()):
        note(f"not in it: {part}: {why}")
    note("secrets are taken out; look through it before you send it")
    show(f"{path}\n")


def _doctor(where: Path | None) -> Any:
    import msgspec

    from topoctl.doctor.checks import checks

    return msgspec.to_builtins(list(checks(where, os.environ)))


def _write(path: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Write the bundle for its owner alone. Raises `ConflictError` for a file that is there, `StoreError`."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConflictError(f"{path} is there already", hint="name another file with --out") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            for part, data in sorted(files.items()):
                entry = tarfile.TarInfo(f"{name}/{part}")
                entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
                tar.addfile(entry, io.BytesIO(data))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None

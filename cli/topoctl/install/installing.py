"""The steps of `topoctl install`: files first, then what reads them; each may have been done before."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from topoctl.install.files import Found, look, make_folder, put, stamped
from topoctl.install.parts import COORDINATOR, HOST, PACKAGED, SHARED, UNITS, part
from topoctl.install.steps import Step, System
from topod.adapters.curve_keys import create_key_file, read_private
from topod.errors import ConflictError, NotAllowedError, UsageError
from topod.protocol.curve import Kind, check_name
from topod.shell.config_sample import sample_config

ETC = "/etc/topod"
CONFIG = f"{ETC}/topod.toml"
KEYS = {Kind.HOST: f"{ETC}/host.key", Kind.COORDINATOR: f"{ETC}/coordinator.key"}
FLEET = "fleet"


def steps(system: System, programs: Path, kind: Kind, name: str | None) -> list[Step]:
    """Return what makes topod, or a fleet's coordinator, a service of this machine.

    `name` is that of its key; None: the host's own, or `fleet`. Raises `ConflictError` where a package of
    the system did it already.
    """
    need_no_package(system)
    units = COORDINATOR if kind is Kind.COORDINATOR else HOST
    after = [
        system.run(
            "systemd-sysusers", "topod.conf", of_it="groups topod, topod-admin; user topod-coordinator"
        )
    ]
    written = [_file(system, path, part(source, programs)) for source, path in {**SHARED, **units}.items()]
    made = [_folder(system), _config(system), _key(system, kind, name)]
    after.append(
        system.run("systemd-tmpfiles", "--create", "topod.conf", of_it="owners and modes in /etc/topod")
    )
    if system.live:
        after.append(system.run("systemctl", "daemon-reload", of_it="systemd reads the units"))
    return [*written, *made, *after]


def next_words(system: System, kind: Kind, programs: Path, *, active: bool) -> Iterator[tuple[str, str]]:
    """Yield what is left to do by hand: a command or a file, and why."""
    unit = "topod-coordinator" if kind is Kind.COORDINATOR else "topod"
    # What a login has: who types `topoctl` may have asked for it by its whole path.
    usual = [system.path(f"{folder}/topoctl") for folder in ("/usr/local/bin", "/usr/bin", "/bin")]
    if not any(path.exists() for path in usual):
        yield f"ln -s {programs}/topoctl /usr/local/bin/", "for everybody to have it"
    if kind is Kind.COORDINATOR:
        yield CONFIG, "[coordinator] listen, where hosts and users are to reach it"
    else:
        yield CONFIG, "look through it; as it stands it changes nothing"
        yield "usermod -aG topod USER", "who may use topod here, beside root"
    if active:
        yield f"systemctl restart {unit}", "the new version; jobs go on"
    else:
        yield f"systemctl enable --now {unit}", "start it, now and at each boot"


def _file(system: System, path: str, text: str) -> Step:
    target = system.path(path)
    what, mode = str(target), "0644 root:root"
    match look(target, text):
        case Found.SAME:
            return Step(verb="ok", what=what, of_it=mode)
        case Found.CHANGED:
            words = "not as it was written, so it stays; remove it to get that of this version"
            return Step(verb="keep", what=what, of_it=words)
        case Found.OURS | Found.NOTHING as found:
            verb = "replace" if found is Found.OURS else "write"
            return Step(verb=verb, what=what, of_it=mode, act=lambda: put(target, stamped(text)))


def _folder(system: System) -> Step:
    target = system.path(ETC)
    if target.is_dir():
        return Step(verb="ok", what=str(target), of_it="0755 root:root")
    return Step(verb="make", what=str(target), of_it="0755 root:root", act=lambda: make_folder(target))


def _config(system: System) -> Step:
    target = system.path(CONFIG)
    if target.exists() or target.is_symlink():
        return Step(verb="keep", what=str(target), of_it="it is yours")
    words = "0644 root:root, every setting with its default, switched off"
    return Step(verb="write", what=str(target), of_it=words, act=lambda: put(target, sample_config()))


def _key(system: System, kind: Kind, name: str | None) -> Step:
    target = system.path(KEYS[kind])
    if target.exists() or target.is_symlink():
        if os.geteuid() == 0:
            read_private(target, kind)  # one that cannot be used is told now, not when the fleet is joined
        return Step(verb="keep", what=str(target), of_it="a key is never made anew")
    whose = name or (FLEET if kind is Kind.COORDINATOR else os.uname().nodename.partition(".")[0])
    try:
        check_name(whose)
    except ValueError as error:
        raise UsageError(str(error), hint="--name NAME is that of the key") from None

    def make() -> None:
        create_key_file(target, kind, whose)

    return Step(verb="make", what=str(target), of_it=f"0600 root:root, a new key of {kind} {whose}", act=make)


def need_no_package(system: System) -> None:
    """Raise `ConflictError` where a package of the system has topod's units."""
    for path in PACKAGED:
        if system.path(path).exists():
            raise ConflictError(
                f"topod is installed here as a package of the system ({path})",
                hint="the package does all this; to be without it: apt remove topod",
            )


def need_root(command: str) -> None:
    """Raise `NotAllowedError` for anybody but root."""
    if os.geteuid() != 0:
        words = f"topoctl {command} --apply"
        raise NotAllowedError(f"{words} is for root", hint=f"sudo {sys.argv[0]} {command} --apply")


def need_systemd(system: System) -> None:
    """Raise `ConflictError` where systemd does not run this machine."""
    if system.live and not Path("/run/systemd/system").is_dir():
        raise ConflictError(
            f"systemd does not run this machine, so nothing would start what is in {UNITS}",
            hint="topod runs in the foreground too; --root DIR writes into the files of another machine",
        )

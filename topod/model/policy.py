"""What a job may ask of the host: the site's policy, a value, and the judgement of one job by it. Pure.

Rule: what the policy does not name is denied. It holds for everybody, root too.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final

from topod.model import image
from topod.model.job import JobSpec, Network

ANY: Final = "*"
CALLER: Final = "caller"
"""As a user: the one who submits, by number."""
_GPU: Final = re.compile(r"/dev/(nvidia(\d|-caps)|dri(/|$))")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPolicy:
    """See docs/reference/configuration.md, `[security.jobs]`."""

    images: tuple[str, ...] = (ANY,)
    require_digest: bool = False
    mounts: tuple[str, ...] = ()
    """Roots below which folders of the host may be mounted; `{user}` is who submits."""
    mounts_read_only: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    users: tuple[str, ...] = (ANY,)
    networks: tuple[Network, ...] = (Network.BRIDGE, Network.NONE)
    """What a job that says nothing gets: the engine's own where `bridge` is allowed, else the first."""
    capabilities: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    ulimits: Mapping[str, int] | None = None
    """The highest value by name, -1: any; names that are not there are denied. None: no limit is set."""
    max_gpus: int | None = None
    no_new_privileges: bool = True
    drop_capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitter:
    """Who a job belongs to, by name and number; numbers are None where the host does not know the name."""

    name: str
    uid: int | None = None
    gid: int | None = None
    gids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPaths:
    """What the judgement must know of the host's file system."""

    real: Callable[[str], str]
    """The path without any symbolic link, as far as it exists."""
    protected: tuple[str, ...] = ()
    """Real paths that give the host away: the engine's socket, topod's own folders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The job as it may run, with real paths and its user filled in, or what is wrong with it."""

    spec: JobSpec
    refusals: tuple[str, ...] = ()


def takes_gpus(spec: JobSpec, paths: HostPaths) -> str | None:
    """Return the device of the job that is a GPU, or holds one: those are given by number, never by name."""
    for device in spec.devices:
        real = paths.real(device.source)
        if _GPU.match(real) or _holds(real, "/dev/nvidia0"):
            return device.source
    return None


def judge(policy: JobPolicy, spec: JobSpec, who: Submitter, paths: HostPaths) -> Verdict:
    """Return whether the policy lets this job run, and how."""
    user, wrong_user = _user(policy, spec, who)
    refusals = [
        *_image(policy, spec),
        *wrong_user,
        *_network(policy, spec),
        *_rights(policy, spec, paths),
        *_limits(policy, spec),
        *_files(policy, spec, who, paths),
    ]
    network = spec.network
    if network is None and Network.BRIDGE not in policy.networks and policy.networks:
        network = policy.networks[0]
    vetted = replace(
        spec,
        container_user=user,
        network=network,
        mounts=tuple(replace(mount, source=paths.real(mount.source)) for mount in spec.mounts),
        secrets=tuple(replace(secret, source=paths.real(secret.source)) for secret in spec.secrets),
        devices=tuple(replace(device, source=paths.real(device.source)) for device in spec.devices),
    )
    return Verdict(spec=vetted, refusals=tuple(refusals))


def _image(policy: JobPolicy, spec: JobSpec) -> Iterator[str]:
    if spec.image is None:
        return
    if not any(image.matches(spec.image, pattern) for pattern in policy.images):
        unclear = " (write a tag: this could be the number of an image)"
        told = f"image {spec.image}{unclear if image.may_be_an_id(spec.image) else ''}"
        yield f"{told} {_not('among', policy.images)}"
    elif policy.require_digest and not image.has_digest(spec.image):
        yield f"image {spec.image} names no digest (IMAGE@sha256:...)"


def _user(policy: JobPolicy, spec: JobSpec, who: Submitter) -> tuple[str | None, list[str]]:
    """Return whom the container runs as, and what is wrong with that."""
    asked = spec.container_user
    if ANY in policy.users:
        return asked, []
    if CALLER in policy.users:
        if who.uid is None or who.gid is None:
            return asked, [f"this host does not know user {who.name}, as whom the job would run"]
        if asked is None or asked == str(who.uid):
            # Never without the group: for a number that the image does not know the engine would take 0.
            return f"{who.uid}:{who.gid}", []
        user, _, group = asked.partition(":")
        if user == str(who.uid) and group in {str(gid) for gid in (who.gid, *who.gids)}:
            return asked, []
    if asked is not None and asked in policy.users:
        return asked, []
    told = "a user of the image's own" if asked is None else f"user {asked}"
    return asked, [f"{told} {_not('among', policy.users)} (--user)"]


def _network(policy: JobPolicy, spec: JobSpec) -> Iterator[str]:
    if spec.network is not None and spec.network not in policy.networks:
        yield f"network {spec.network} {_not('among', policy.networks)}"


def _rights(policy: JobPolicy, spec: JobSpec, paths: HostPaths) -> Iterator[str]:
    for name in spec.cap_add:
        if name not in policy.capabilities:
            yield f"capability {name} {_not('among', policy.capabilities)}"
    for device in spec.devices:
        real = paths.real(device.source)
        if not any(fnmatchcase(real, pattern) for pattern in policy.devices):
            yield f"device {_led(device.source, real)} {_not('among', policy.devices)}"


def _limits(policy: JobPolicy, spec: JobSpec) -> Iterator[str]:
    if policy.max_gpus is not None and spec.request.gpus > policy.max_gpus:
        yield f"{spec.request.gpus} GPUs are more than the {policy.max_gpus} that one job may have"
    for name, value in spec.ulimits.items() if policy.ulimits is not None else ():
        most = (policy.ulimits or {}).get(name)
        if most is None:
            yield f"ulimit {name} {_not('among', tuple(policy.ulimits or ()))}"
        elif most != -1 and (value == -1 or value > most):
            yield f"ulimit {name}={value} is above {most}"


def _files(policy: JobPolicy, spec: JobSpec, who: Submitter, paths: HostPaths) -> Iterator[str]:
    writable = _roots(policy.mounts, who, paths)
    readable = writable + _roots(policy.mounts_read_only, who, paths)
    secret = readable + _roots(policy.secrets, who, paths)
    for mount in spec.mounts:
        real = paths.real(mount.source)
        shown = _led(mount.source, real)
        if not mount.source.startswith("/"):
            yield f"volume {mount.source} is no absolute path"
        elif exposed := _exposed(real, readable, paths):
            yield f"volume {shown} holds {exposed}, which no job may have"
        elif not _below(real, readable):
            yield f"volume {shown} {_not('below', policy.mounts + policy.mounts_read_only)}"
        elif not mount.read_only and not _below(real, writable):
            yield f"volume {shown} may only be read here: write {mount.source}:{mount.target}:ro"
    for one in spec.secrets:
        real = paths.real(one.source)
        if _exposed(real, secret, paths) or not _below(real, secret):
            yield f"secret {_led(one.source, real)} {_not('below', policy.secrets)}"


def _roots(roots: tuple[str, ...], who: Submitter, paths: HostPaths) -> tuple[str, ...]:
    # A name that is no plain word could lead somewhere else.
    named = who.name if _USER.fullmatch(who.name) else None
    return tuple(
        paths.real(root.replace("{user}", named or ""))
        for root in roots
        if "{user}" not in root or named is not None
    )


def _below(path: str, roots: tuple[str, ...]) -> bool:
    return any(_holds(root, path) for root in roots)


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _exposed(path: str, roots: tuple[str, ...], paths: HostPaths) -> str | None:
    """Return the protected path that a mount would give away.

    Only a root that names it, or a part of it, opens it: no root above it does.
    """
    for protected in paths.protected:
        if _holds(path, protected) and protected not in roots:
            return protected
        if _holds(protected, path) and not _below(path, tuple(r for r in roots if _holds(protected, r))):
            return protected
    return None


def _led(path: str, real: str) -> str:
    return path if path == real else f"{path} (which is {real})"


def _not(where: str, words: tuple[str, ...]) -> str:
    """Return `is not among a, b`, or where nothing is listed that nothing is allowed."""
    return f"is not {where} {', '.join(words)}" if words else "is not allowed here: none is"

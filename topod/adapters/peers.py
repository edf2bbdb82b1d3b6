"""Who is at the other end: of a Unix socket by the kernel, of a coordinator's port by the key."""

import grp
import os
import pwd
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import zmq

from topod.errors import TopodError
from topod.model.roles import Role
from topod.protocol.curve import Kind

_ADDRESS = re.compile(r"[^:]*:(\d+):(\d+):(\d+)")
CHECK_MS = 2000


class NoPeersError(TopodError):
    """libzmq does not say who connects here, so nobody can be told from anybody."""

    code = "no-peer-credentials"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A process that talks to topod, as the kernel named it when it connected (SO_PEERCRED)."""

    uid: int
    gid: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemotePeer:
    """A host or a user at a coordinator's port, as the file of authorised keys names the key."""

    kind: Kind
    name: str
    roles: frozenset[Role] = frozenset()
    """Of a user."""
    max_priority: int | None = None
    """The most that a user may ask for; None: the file does not say."""
    address: str = ""

    def __str__(self) -> str:
        """Return `user:alice`."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixUser:
    """A user of this host: the name, or the number where there is none, and its groups by name and number."""

    name: str
    groups: frozenset[str]


def parse_peer(address: str) -> Peer | None:
    """Return who `localhost:UID:GID:PID` is, libzmq's "Peer-Address" of an ipc connection; None: unknown."""
    match = _ADDRESS.fullmatch(address)
    return None if match is None else Peer(uid=int(match[1]), gid=int(match[2]), pid=int(match[3]))


def peer_of(frame: zmq.Frame) -> Peer | None:
    """Return who sent a frame.

    libzmq fills "Peer-Address" in before it takes over what the peer says of itself, and what is there first
    stays: a peer cannot lie here as long as libzmq fills it in at all. `check_peers` makes sure of that.
    """
    try:
        address = frame.get("Peer-Address")
    except zmq.ZMQError:
        return None
    return parse_peer(address) if isinstance(address, str) else None


def check_peers(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    """Connect to ourselves and raise `NoPeersError` when libzmq does not say that it was us."""
    endpoint = f"ipc://@topod-{uuid.uuid4().hex}"
    with context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        for wire in (pull, push):
            wire.set(zmq.LINGER, 0)
        pull.bind(endpoint)
        push.connect(endpoint)
        push.send(b"")
        peer = peer_of(pull.recv(copy=False)) if pull.poll(CHECK_MS) else None
    if peer != Peer(uid=os.geteuid(), gid=os.getegid(), pid=os.getpid()):
        raise NoPeersError(
            f"this libzmq ({zmq.zmq_version()}) does not say who connects: {peer}",
            hint="install a pyzmq for glibc, version 26 or later",
        )


def unix_user(uid: int, gid: int) -> UnixUser:
    """Return what the user database says of a user; may block while a directory service is asked.

    `gid` is the group that the process has now; it counts even where the database does not list it.
    """
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return UnixUser(name=str(uid), groups=frozenset({group_name(gid), str(gid)}))
    numbers = {gid, *os.getgrouplist(name, gid)}
    words = {word for number in numbers for word in (group_name(number), str(number))}
    return UnixUser(name=name, groups=frozenset(words))


def unknown_groups(named: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a sentence for each group of the configuration that this machine does not know.

    `named`: groups by the key that names them. May block while a directory service is asked, and a service
    that is away knows no group: a reason to tell of it, none to refuse anything.
    """
    return [
        f"{key}: there is no group {group} on this machine"
        for key, groups in named.items()
        for group in groups
        if not _is_group(group)
    ]


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return name.isdecimal()
    except OSError:
        return True  # nobody can tell
    return True


def group_name(gid: int) -> str:
    """Return a group's name, or its number where there is none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)

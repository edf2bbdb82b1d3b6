"""Who may do what: from the process, or the key, at the other end to a caller with roles."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from topod.adapters.peers import Peer, RemotePeer, UnixUser, unix_user
from topod.errors import NotAllowedError
from topod.model.roles import Role
from topod.protocol.curve import Kind
from topod.shell.config_file import SecuritySection

ANYBODY: Final = "*"
"""Instead of a group: whoever can open the socket."""
REMEMBERED_SECONDS: Final = 30.0
"""How long a user's groups are taken to be what they were."""
LOOKUP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A user who asks topod for something."""

    user: str
    source: str
    """Where the request comes from, for the log: `pid 4711`, `10.0.0.7`."""
    roles: frozenset[Role]
    max_priority: int | None = None
    """None: any."""
    by_key: bool = False
    """Known by a key of the file of authorised keys, whose roles then hold, and not by the kernel."""
    is_host: bool = False
    """root, or the user that topod runs as: may speak for others."""

    @property
    def is_admin(self) -> bool:
        """Whether others' jobs are open to this caller."""
        return Role.ADMINISTER in self.roles

    def owns(self, user: str) -> bool:
        """Whether a job of `user` is this caller's own."""
        return user == self.user


def groups_named(rules: SecuritySection) -> dict[str, list[str]]:
    """Return the groups that the configuration names, by key, such as `security.submit`.

    A group that topod names by itself need not exist: it stands for nobody until somebody makes it.
    """
    default = SecuritySection()
    named = {
        "security.view": [*rules.view],
        "security.submit": [*rules.submit],
        "security.administer": [one for one in rules.administer if one not in default.administer],
        "security.max_priority": [*rules.max_priority],
    }
    found = {key: [group for group in groups if group != ANYBODY] for key, groups in named.items()}
    return {key: groups for key, groups in found.items() if groups}


class Access:
    """Turns peers into callers by the rules of `[security]`. Used from the event loop only."""

    def __init__(self, rules: SecuritySection, *, lookup: Callable[[int, int], UnixUser] = unix_user) -> None:
        self._groups: Mapping[Role, tuple[str, ...]] = {
            Role.VIEW: rules.view,
            Role.SUBMIT: rules.submit,
            Role.ADMINISTER: rules.administer,
        }
        self._max_priority = rules.max_priority
        self._lookup = lookup
        self._known: dict[tuple[int, int], tuple[float, UnixUser]] = {}
        # A pool of its own: a directory service that hangs holds up nothing else.
        self._threads = ThreadPoolExecutor(4, "users")

    @property
    def open_to_view(self) -> bool:
        """Whether everybody who can open the socket may look."""
        return ANYBODY in self._groups[Role.VIEW]

    def groups_of(self, role: Role) -> tuple[str, ...]:
        """Return the groups whose members have a role."""
        return self._groups[role]

    async def caller(self, peer: Peer | RemotePeer | None) -> Caller:
        """Return who a peer is. Raises `NotAllowedError` when that cannot be found out."""
        if isinstance(peer, RemotePeer):
            return self._by_key(peer)
        if peer is None:
            raise NotAllowedError("the kernel does not say who asks")
        user = await self._user(peer)
        is_host = peer.uid in (0, os.geteuid())
        roles = frozenset(Role) if is_host else self._roles(user)
        return Caller(
            user=user.name,
            source=f"pid {peer.pid}",
            roles=roles,
            max_priority=None if Role.ADMINISTER in roles else self._limit(user),
            is_host=is_host,
        )

    def _by_key(self, peer: RemotePeer) -> Caller:
        if peer.kind is not Kind.USER:
            raise NotAllowedError(f"{peer} is no user", hint="topoctl --key FILE, with the key of a user")
        most = self._max_priority.get(ANYBODY) if peer.max_priority is None else peer.max_priority
        return Caller(
            user=peer.name,
            source=peer.address,
            roles=peer.roles,
            max_priority=None if Role.ADMINISTER in peer.roles else most,
            by_key=True,
        )

    async def may_view(self, peer: Peer | None) -> bool:
        """Whether a peer may see what happens on the host."""
        try:
            return Role.VIEW in (await self.caller(peer)).roles
        except NotAllowedError:
            return False

    def close(self) -> None:
        """Wait for no lookup."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _roles(self, user: UnixUser) -> frozenset[Role]:
        has = {role for role, groups in self._groups.items() if ANYBODY in groups or user.groups & {*groups}}
        # Who may administer may do all; who may submit sees what it competes with.
        if Role.ADMINISTER in has:
            return frozenset(Role)
        return frozenset(has | {Role.VIEW}) if Role.SUBMIT in has else frozenset(has)

    def _limit(self, user: UnixUser) -> int | None:
        limits = [most for group, most in self._max_priority.items() if group in {*user.groups, ANYBODY}]
        return max(limits) if limits else None

    async def _user(self, peer: Peer) -> UnixUser:
        key = (peer.uid, peer.gid)
        if peer.uid == 0:
            return UnixUser(name="root", groups=frozenset())
        found = self._known.get(key)
        # Who may do everything is not asked for again: no group would change it.
        if found is not None and peer.uid == os.geteuid():
            return found[1]
        if found is not None and time.monotonic() - found[0] < REMEMBERED_SECONDS:
            return found[1]
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                user = await loop.run_in_executor(self._threads, self._lookup, *key)
        except (TimeoutError, OSError, RuntimeError) as error:
            text = f"the groups of user {peer.uid} cannot be found out: {str(error) or 'no answer'}"
            raise NotAllowedError(text, hint=f"getent initgroups {peer.uid}") from None
        self._known[key] = (time.monotonic(), user)
        return user

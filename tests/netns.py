"""Hosts of a test network: network namespaces joined by a bridge, whose links can be cut, thinned, slowed down, made lossy.

A namespace here has no name and no file: it lives as long as this process has it open or a process runs in it, so
whatever becomes of a test, the kernel takes everything away with it. Nothing leads out of such a network, and its
hosts see nothing of the machine's own. Unix sockets of the file system reach across.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TypeVar

from tests.engine import skip_or_fail
from tests.slow_wire import SlowWire, open_tap

T = TypeVar("T")
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
SUBNET = "10.203.0"
PROGRAMS = {"ip": "iproute2", "tc": "iproute2", "iptables": "iptables", "nsenter": "util-linux"}
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
TCP_STATES = {"01": "established", "02": "syn-sent", "03": "syn-received", "0A": "listen"}


class NoNamespacesError(Exception):
    """Network namespaces cannot be made here; the text says why."""


class Network:
    """Some hosts on one bridge, each in a network namespace of its own.

    A host has one interface, `eth0`, and the address that `address` tells. Links are cut where packets arrive, so
    that the sender learns nothing, as of a cable that is cut elsewhere.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Make the network. Raises NoNamespacesError."""
        self.names = tuple(names)
        self._spaces: dict[str, int] = {}
        self._wires: dict[str, str] = {}
        self._blocked: set[tuple[str, str]] = set()
        self._bad: set[str] = set()
        self._slow: dict[str, SlowWire] = {}
        try:
            self._make()
        except (OSError, subprocess.SubprocessError) as error:
            self.close()
            told = getattr(error, "stderr", b"") or str(error).encode()
            raise NoNamespacesError(f"no network namespaces here: {told.decode().strip()}") from error

    def _make(self) -> None:
        switch = self._spaces[""] = _new_namespace()
        self._run("", "ip", "link", "add", "bridge", "type", "bridge")
        self._run("", "ip", "link", "set", "bridge", "up")
        for number, name in enumerate(self.names):
            self._wires[name] = f"wire{number}"
            self._spaces[name] = _new_namespace()
            there = f"/proc/{os.getpid()}/fd/{switch}"
            self._batch(
                name,
                "link set lo up",
                f"link add eth0 type veth peer name {self._wires[name]} netns {there}",
                f"address add {self.address(name)}/24 dev eth0",
                "link set eth0 up",
            )
            self._batch("", f"link set {self._wires[name]} master bridge up")

    def close(self) -> None:
        """Let go of the namespaces; each vanishes with the last process in it."""
        for slow in self._slow.values():
            slow.close()
        self._slow.clear()
        for space in self._spaces.values():
            os.close(space)
        self._spaces.clear()

    def address(self, name: str) -> str:
        """Return the IPv4 address of one host."""
        return f"{SUBNET}.{self.names.index(name) + 1}"

    def prefix(self, name: str) -> tuple[str, ...]:
        """Return what goes before a command for it to run on that host; the process keeps its PID."""
        return ("nsenter", f"--net=/proc/{os.getpid()}/fd/{self._spaces[name]}", "--")

    def popen(
        self, name: str, command: Sequence[str], *, log: IO[bytes] | int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process on one host, in a session of its own."""
        return subprocess.Popen(
            [*self.prefix(name), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def call(self, name: str, function: Callable[[], T]) -> T:
        """Return what the function returns on that host: sockets it makes belong there, whoever uses them then."""

        def there() -> T:
            if LIBC.setns(self._spaces[name], CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            return function()

        with ThreadPoolExecutor(1) as thread:  # the namespace is the thread's, and ends with it
            return thread.submit(there).result()

    def block(self, source: str, to: str) -> None:
        """Let nothing of what one host sends arrive at another, silently; the way back stays as it is."""
        if (source, to) not in self._blocked:
            self._blocked.add((source, to))
            self._rule("-I", to, source)

    def unblock(self, source: str, to: str) -> None:
        """Take one `block` back."""
        if (source, to) in self._blocked:
            self._blocked.remove((source, to))
            self._rule("-D", to, source)

    def cut(self, name: str, *others: str, arrives: bool = False, leaves: bool = False) -> None:
        """Cut a host off from those others, or from all; with `arrives` or `leaves` that direction still works."""
        for other in others or [each for each in self.names if each != name]:
            if not arrives:
                self.block(other, name)
            if not leaves:
                self.block(name, other)

    def split(self, *sides: Sequence[str]) -> None:
        """Let each side reach only its own hosts."""
        for side in sides:
            for name in side:
                for other in (each for more in sides if more is not side for each in more):
                    self.block(other, name)

    def unplug(self, name: str) -> None:
        """Take the carrier from a host's link, which the host notices, as of its own cable pulled."""
        self._bad.add(name)
        self._batch("", f"link set {self._wires[name]} down")

    def worsen(self, name: str, *, loss: float = 0.0, rate: str = "", delay: float = 0.0) -> None:
        """Make a host's link lossy (the share of packets), thin (such as `64kbit`) and slow (seconds), each way."""
        self._mend(name)
        self._bad.add(name)
        if rate:
            shape = ("root", "tbf", "rate", rate, "burst", "4kb", "latency", "2s")
            self._run(name, "tc", "qdisc", "add", "dev", "eth0", *shape)
            self._run("", "tc", "qdisc", "add", "dev", self._wires[name], *shape)
        if delay:
            self._lengthen(name, delay)
        if loss:
            chance = ("-m", "statistic", "--mode", "random", "--probability", str(loss))
            self._filter(name, "-A", *chance)
            for other in self.names:
                if other != name:
                    self._filter(other, "-A", "-s", self.address(name), *chance)

    def heal(self, *names: str) -> None:
        """Make the links of these hosts, or of all, as they were at first."""
        chosen = set(names or self.names)
        for source, to in sorted(self._blocked):
            if source in chosen or to in chosen:
                self.unblock(source, to)
        for name in chosen & self._bad:
            self._mend(name)
            self._bad.discard(name)

    def connections(self, name: str, port: int) -> Counter[str]:
        """Count the TCP connections on one host that have that port at either end, by their state."""
        table = self._run(name, "cat", "/proc/self/net/tcp").decode().splitlines()[1:]
        rows = [line.split() for line in table]
        wanted = f":{port:04X}"
        return Counter(
            TCP_STATES.get(row[3], "closing") for row in rows if wanted in (row[1][-5:], row[2][-5:])
        )

    def _lengthen(self, name: str, delay: float) -> None:
        """Put a slow wire between a host's link and the bridge."""
        wire = self._wires[name]
        here = self.call("", lambda: open_tap(f"{wire}a"))
        there = self.call("", lambda: open_tap(f"{wire}b"))
        self._slow[name] = SlowWire(here, there, delay)
        self._batch(
            "",
            f"link add {wire}br type bridge",
            f"link set {wire}br up",
            f"link set {wire} master {wire}br",
            f"link set {wire}a master {wire}br up",
            f"link set {wire}b master bridge up",
        )

    def _mend(self, name: str) -> None:
        if (slow := self._slow.pop(name, None)) is not None:
            wire = self._wires[name]
            slow.close()
            self._batch("", f"link set {wire} master bridge", f"link delete {wire}br")
        self._batch("", f"link set {self._wires[name]} up")
        for space, device in ((name, "eth0"), ("", self._wires[name])):
            with contextlib.suppress(subprocess.CalledProcessError):  # it has none
                self._run(space, "tc", "qdisc", "delete", "dev", device, "root")
        chains = {each: self._run(each, "iptables", "-w", "-S", "INPUT").decode() for each in self.names}
        for each, rules in chains.items():
            for rule in rules.splitlines():
                mine = f"-s {self.address(name)}/" in rule or (each == name and " -s " not in rule)
                if "statistic" in rule and mine:
                    self._run(each, "iptables", "-w", "-D", *rule.split()[1:])

    def _rule(self, verb: str, to: str, source: str) -> None:
        self._filter(to, verb, "-s", self.address(source))

    def _filter(self, name: str, verb: str, *match: str) -> None:
        self._run(name, "iptables", "-w", verb, "INPUT", "-i", "eth0", *match, "-j", "DROP")

    def _batch(self, name: str, *lines: str) -> None:
        self._run(name, "ip", "-batch", "-", given="\n".join(lines).encode())

    def _run(self, name: str, *command: str, given: bytes | None = None) -> bytes:
        return subprocess.run(
            [*self.prefix(name), *command],
            input=given,
            capture_output=True,
            check=True,
            timeout=60,
            env={**os.environ, "PATH": PATH},
        ).stdout


def _new_namespace() -> int:
    """Return an open file of a new network namespace, which a process made that is gone already."""
    maker = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo made; read -r line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with maker:
        assert maker.stdin is not None
        assert maker.stdout is not None
        assert maker.stderr is not None
        if not maker.stdout.readline():
            raise OSError(maker.stderr.read().decode().strip())
        space = os.open(f"/proc/{maker.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        maker.stdin.close()
    return space


def missing_parts() -> str | None:
    """Return why no network of namespaces can be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=PATH) is None:
            return f"{program} is not installed (package {package})"
    return None


@contextlib.contextmanager
def network(*names: str, needs: Callable[[Network], None] | None = None) -> Iterator[Network]:
    """Give a network of these hosts; skips the test, with the reason, where none can be made.

    `needs` tries what else the test needs of it, such as `thin_links`; what it raises is the reason.
    """
    if reason := missing_parts():
        skip_or_fail(reason)
    try:
        made = Network(names)
    except NoNamespacesError as error:
        skip_or_fail(str(error))
        raise
    try:
        if needs is not None:
            try:
                needs(made)
            except subprocess.CalledProcessError as error:
                skip_or_fail(f"this kernel cannot do it: {error.stderr.decode().strip()}")
            except OSError as error:
                skip_or_fail(f"no TAP devices here: {error}")
        yield made
    finally:
        made.close()


def filters(net: Network) -> None:
    """Try whether links can be cut."""
    first, second = net.names[:2]
    net.cut(first, second)
    net.heal()


def thin_links(net: Network) -> None:
    """Try whether links can be cut, thinned, slowed down and made lossy."""
    filters(net)
    net.worsen(net.names[0], loss=0.5, rate="64kbit", delay=0.1)
    net.heal()

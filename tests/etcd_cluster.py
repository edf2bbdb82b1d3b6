"""Real members of etcd on loopback, gone afterwards: Debian's etcd-server, never the machine's own service."""

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine import skip_or_fail
from tests.netns import Network

START_SECONDS = 60.0
FAST = ("--heartbeat-interval", "100", "--election-timeout", "1000")


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class EtcdCluster:
    """Some members; each can be killed, stopped in its tracks, and started again."""

    def __init__(
        self, folder: Path, members: int, net: Network | None = None, tls: Path | None = None
    ) -> None:
        """`net` has a host `etcd0`, `etcd1`, ... for each member; None: all are on loopback.

        `tls` is a folder with what `certificates` makes.
        """
        self.folder = folder
        self.tls = tls
        self.net = net
        if net is None:
            ports = free_ports(2 * members)
            places = [f"127.0.0.1:{port}" for port in ports]
        else:
            hosts = [net.address(f"etcd{number}") for number in range(members)]
            places = [f"{host}:{port}" for port in (2379, 2380) for host in hosts]
        scheme = "http" if tls is None else "https"
        self.endpoints = [f"{scheme}://{place}" for place in places[:members]]
        self._peers = [f"http://{place}" for place in places[members:]]
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * members

    def start(self, *members: int) -> None:
        """Start these members, by default all, and wait until most of them answer."""
        chosen = members or range(len(self.processes))
        everybody = ",".join(f"m{number}={peer}" for number, peer in enumerate(self._peers))
        for number in chosen:
            command = [
                *(self.net.prefix(f"etcd{number}") if self.net else ()),
                "etcd",
                *("--name", f"m{number}", "--data-dir", str(self.folder / f"m{number}")),
                *("--listen-client-urls", self.endpoints[number]),
                *("--advertise-client-urls", self.endpoints[number]),
                *("--listen-peer-urls", self._peers[number]),
                *("--initial-advertise-peer-urls", self._peers[number]),
                *("--initial-cluster", everybody, "--initial-cluster-token", self.folder.name),
                *("--logger", "zap", "--log-outputs", "stderr", *FAST),
                *self._flags_of_tls(),
            ]
            with (self.folder / f"m{number}.log").open("ab") as log:
                self.processes[number] = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        end = time.monotonic() + START_SECONDS
        for number in chosen:
            while self.leads(number) is None:
                assert time.monotonic() < end, (self.folder / f"m{number}.log").read_text()[-3000:]
                time.sleep(0.02)

    def _flags_of_tls(self) -> list[str]:
        if self.tls is None:
            return []
        names = {"--cert-file": "one.pem", "--key-file": "one.key", "--trusted-ca-file": "ca.pem"}
        flags = [word for flag, name in names.items() for word in (flag, str(self.tls / name))]
        return [*flags, "--client-cert-auth"]

    def kill(self, number: int) -> None:
        process = self.processes[number]
        assert process is not None
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        self.processes[number] = None

    def close(self) -> None:
        for number, process in enumerate(self.processes):
            if process is not None:
                self.kill(number)

    def leader(self) -> int:
        """Return the member that leads the others."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            for number, process in enumerate(self.processes):
                if process is not None and self.leads(number):
                    return number
            time.sleep(0.02)
        raise AssertionError("etcd has no leader")

    def leads(self, number: int) -> bool | None:
        """Say whether a member leads; None: it does not answer, or nobody does."""
        url = f"{self.endpoints[number]}/v3/maintenance/status"

        trust = None if self.tls is None else ssl.create_default_context(cafile=self.tls / "ca.pem")
        if trust is not None and self.tls is not None:
            trust.load_cert_chain(self.tls / "one.pem", self.tls / "one.key")

        def ask() -> dict[str, Any]:
            with urllib.request.urlopen(url, data=b"{}", timeout=1, context=trust) as answer:
                told: dict[str, Any] = json.load(answer)
                return told

        try:
            status = self.net.call(f"etcd{number}", ask) if self.net else ask()
        except OSError:
            return None
        leader = status.get("leader", "0")
        return None if leader == "0" else bool(leader == status["header"]["member_id"])


def certificates(folder: Path) -> Path:
    """Make an authority, and one certificate by it for a member on loopback and its clients; return where."""
    if shutil.which("openssl") is None:
        skip_or_fail("openssl is not installed (package openssl)")
    folder.mkdir()
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    for command in (
        ("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca"),
        ("req", *curve, "-keyout", "one.key", "-out", "one.csr", "-subj", "/CN=one"),
        ("x509", "-req", "-in", "one.csr", "-out", "one.pem", *signing),
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True, timeout=60)
    return folder


def missing_etcd() -> str | None:
    """Return why there can be no etcd here, or None."""
    if shutil.which("etcd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        return "etcd is not installed (package etcd-server)"
    try:
        import aetcd  # noqa: F401, PLC0415
    except ImportError:
        return "aetcd is not installed (the extra `etcd`)"
    return None


@contextlib.contextmanager
def etcd_cluster(
    folder: Path, members: int, net: Network | None = None, tls: Path | None = None
) -> Iterator[EtcdCluster]:
    """Give a cluster that answers, and leave no process behind."""
    if reason := missing_etcd():
        skip_or_fail(reason)
    cluster = EtcdCluster(folder, members, net, tls)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def one_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """Give an etcd of one member that the tests of a module share; each takes a prefix of its own."""
    with etcd_cluster(tmp_path_factory.mktemp("etcd"), 1) as cluster:
        yield cluster

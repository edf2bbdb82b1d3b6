"""The commands of `docs/howto/build-a-fleet.md`, typed one after the other: each machine is a folder and its processes.

What differs from the page: paths of the system are in that folder, the port is a free one, hosts are emulated, and
`systemctl`, `scp` and `poweroff` do what they do with those processes and folders; of `topoctl install` only the key is made.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.documents.page import Command, commands
from tests.integration.daemon_process import ROOT, START_SECONDS
from tests.integration.fleet_process import free_port
from topod.adapters.curve_keys import create_key_file
from topod.errors import TopodError
from topod.protocol.client import Client
from topod.protocol.curve import Kind
from topod.protocol.replies import Hosts, Jobs
from topod.protocol.requests import Cancel, GetHosts, Hello, ListJobs
from topod.protocol.views import FleetHostView, JobView

PAGE = ROOT / "docs/howto/build-a-fleet.md"
PROMPT = re.compile(r"(?P<machine>head|node-a|node-b|alice)[#$] (?P<words>.*)")
SYSTEM = ("/etc/topod", "/etc/systemd/system", "/run/topod-coordinator")
MODULES = {"topod": "topod.daemon", "topod-coordinator": "topod.coordinator"}


class Machine:
    def __init__(self, folder: Path, name: str, port: int) -> None:
        self.root, self.name, self.port = folder / name, name, port
        self.home = self.root / "home"
        self.home.mkdir(parents=True)
        for path in SYSTEM:
            if path != "/etc/topod":  # which the page makes
                (self.root / path[1:]).mkdir(parents=True)
        (self.root / "etc").mkdir(exist_ok=True)
        self.exported: dict[str, str] = {}
        self.service: subprocess.Popen[bytes] | None = None

    def translated(self, words: str) -> str:
        for path in SYSTEM:
            words = words.replace(path, f"{self.root}{path}")
        return words.replace("head:7461", f"127.0.0.1:{self.port}")

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOPOD_", "XDG_"))}
        path = f"{Path(sys.executable).parent}:{kept.get('PATH', '')}"
        return {**kept, "HOME": str(self.home), "PATH": path, "COLUMNS": "160", **self.exported}

    def make_key(self, name: str, kind: Kind) -> None:
        create_key_file(self.root / f"etc/topod/{kind}.key", kind, name)

    def serve(self, unit: str) -> None:
        config = str(self.root / "etc/topod/topod.toml")
        if unit == "topod":
            place = {
                "TOPOD_SOCKET": str(self.root / "run/topod.sock"),
                "TOPOD_STATE_DIR": str(self.root / "state"),
            }
            more = {**place, "TOPOD_CONFIG": config, "TOPOD_HOST": "dgx1", "TOPOD_RUNTIME": "process"}
        else:
            more = {
                "TOPOD_COORDINATOR_CONFIG": config,
                "TOPOD_COORDINATOR_STATE_DIR": str(self.root / "state"),
                "TOPOD_COORDINATOR_SOCKET": str(self.socket),
            }
        with (self.root / "log").open("ab") as log:
            self.service = subprocess.Popen(
                [sys.executable, "-m", MODULES[unit]],
                cwd=ROOT,
                env={**self.environment, **more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def socket(self) -> Path:
        if self.name == "head":
            return self.root / "run/topod-coordinator/coordinator.sock"
        return self.root / "run/topod.sock"

    def stop(self) -> None:
        if self.service is not None:
            self.service.terminate()
            self.service.wait(timeout=30)
            self.service = None

    def lose_power(self) -> None:
        """End topod at once, and then what ran; nobody tells the coordinator."""
        assert self.service is not None
        self.service.kill()
        self.service.wait()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
                if f"{self.root}/".encode() in told and int(process.name) != os.getpid():
                    os.kill(int(process.name), signal.SIGKILL)
        self.service = None


class Site:
    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.machines = {name: Machine(folder, name, port) for name in ("head", "node-a", "node-b", "alice")}

    def until(self, good: Callable[[], bool]) -> None:
        end = time.monotonic() + 2 * START_SECONDS
        while True:
            try:
                if good():
                    return
            except TopodError:
                pass
            logs = "\n".join(
                (one.root / "log").read_text()[-3000:] for one in self.machines.values() if one.service
            )
            assert time.monotonic() < end, logs
            time.sleep(0.05)

    def heard(self, machine: Machine) -> bool:
        """Say whether a service that was started answers, and where it is a host's, to the coordinator."""
        with Client(machine.socket) as client:
            client.ask(Hello())
        if machine.name == "head":
            return True
        return machine.name in {host.name for host in self.hosts() if host.state == "ready"}

    def hosts(self) -> list[FleetHostView]:
        with Client(self.machines["head"].socket) as client:
            reply = client.ask(GetHosts())
        assert isinstance(reply, Hosts)
        return reply.hosts

    def jobs(self) -> list[JobView]:
        with Client(self.machines["head"].socket) as client:
            reply = client.ask(ListJobs())
        assert isinstance(reply, Jobs)
        return reply.jobs

    def type(self, typed: Command) -> str:
        """Do what is typed and return what is printed."""
        machine = self.machines[typed.machine]
        words = machine.translated(typed.words)
        match words.split():
            case ["systemctl", "enable", "--now", unit]:
                machine.serve(unit)
                self.until(lambda: self.heard(machine))
            case ["systemctl", "restart", unit]:
                machine.stop()
                machine.serve(unit)
                self.until(lambda: self.heard(machine))
                self.until(lambda: all(host.state == "ready" for host in self.hosts()))
            case ["poweroff"]:
                machine.lose_power()
                self.until(lambda: "silent" in {host.state for host in self.hosts()})
            case ["topoctl", "install", "--coordinator", "--apply"]:
                machine.make_key("fleet", Kind.COORDINATOR)
            case ["topoctl", "install", "--name", name, "--apply"]:
                machine.make_key(name, Kind.HOST)
            case ["export", setting]:
                name, _, value = setting.partition("=")
                machine.exported[name] = value
            case ["scp", source, target]:
                there, _, path = (source if ":" in source else target).partition(":")
                other = self.machines[there].home / path
                here = machine.home / (target if ":" in source else source)
                self.copy(other, here) if ":" in source else self.copy(here, other)
            case _:
                done = subprocess.run(
                    ["bash", "-c", words],
                    cwd=machine.home,
                    env=machine.environment,
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
                assert done.returncode == 0, (typed.words, done.stdout, done.stderr)
                return done.stdout
        return ""

    @staticmethod
    def copy(source: Path, target: Path) -> None:
        (target / source.name if target.is_dir() else target).write_bytes(source.read_bytes())

    def close(self) -> None:
        try:
            self.end_jobs()
        finally:
            for machine in self.machines.values():
                machine.stop()

    def end_jobs(self) -> None:
        with Client(self.machines["head"].socket) as client:

            def left() -> list[JobView]:
                reply = client.ask(ListJobs())
                assert isinstance(reply, Jobs)
                return reply.jobs

            client.ask(Cancel(jobs=[job.id for job in left()]))
            self.until(lambda: not left())


@pytest.fixture
def site() -> Iterator[Site]:
    # Not pytest's own folder: the path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        made = Site(Path(folder))
        try:
            yield made
        finally:
            made.close()


def test_the_page_is_true_word_for_word(site: Site) -> None:
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for typed in (command for block in blocks for command in commands(block, PROMPT)):
        printed = [" ".join(line.split()) for line in site.type(typed).splitlines()]
        for line in typed.printed:
            wanted = " ".join(line.split())
            assert any(wanted in one for one in printed), (typed.words, line, printed)
        if "--requeue" in typed.words:
            # Who types is slower than a job that moves; resumed at once, its host could have it back.
            site.until(lambda: all(job.state == "running" and job.hosts == ["node-b"] for job in site.jobs()))

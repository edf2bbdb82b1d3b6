"""A real fleet on loopback: one coordinator, some topods on emulated hosts, keys made by the key code.

Each job tells of itself in files that no part of topod writes, so that a command that ran twice at a time, or
never, shows whatever topod believes.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from tests.integration.daemon_process import ROOT, START_SECONDS, OwnProcess, Topod
from topod.adapters.authorized import Entry, authorize
from topod.adapters.curve_keys import create_key_file
from topod.errors import TopodError
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.model.roles import Role
from topod.protocol.client import Client
from topod.protocol.curve import PUBLIC, KeyPair, Kind
from topod.protocol.remote import Coordinator, Remote
from topod.protocol.replies import AnyReply, Events, Hosts, Jobs
from topod.protocol.requests import (
    AnyRequest,
    Cancel,
    GetHosts,
    GetJob,
    Hello,
    ListJobs,
    ReadEvents,
    Submit,
    WaitJob,
)
from topod.protocol.views import EventView, FleetHostView, JobView

WITNESS = """
echo "$TOPOD_FLEET_JOB begins" >> {runs}/witness
exec 9> {runs}/job-$TOPOD_FLEET_JOB
flock -n 9 || echo "$TOPOD_FLEET_JOB runs twice" >> {runs}/witness
exec 8> {runs}/gpus-$TOPOD_HOSTS-$TOPOD_GPU_INDICES
flock -n 8 || echo "$TOPOD_FLEET_JOB shares its GPUs" >> {runs}/witness
echo "job $TOPOD_FLEET_JOB on $TOPOD_HOSTS"
trap 'exit 0' TERM
"""
"""What each job does first: it takes a lock for itself and one for its GPUs, that only its end gives back."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class CoordinatorProcess(OwnProcess):
    """One state folder and the coordinator that works on it, if one does."""

    def __init__(
        self,
        folder: Path,
        keys: Path,
        authorized: Path,
        *,
        lease: float = 60.0,
        listen: str = "",
        launch: Sequence[str] = (),
        sections: str = "",
    ) -> None:
        """`listen` empty: a free port of this machine; `launch` instead of the interpreter with the module.

        `sections` are further ones of the configuration.
        """
        folder.mkdir(parents=True)
        self.folder = folder
        self.socket = folder / "c.sock"
        self.log = folder / "log"
        self.endpoint = listen or f"tcp://127.0.0.1:{free_port()}"
        self.launch = launch or (sys.executable, "-m", "topod.coordinator")
        self.config = folder / "topod.toml"
        self.config.write_text(
            f'[coordinator]\nlisten = "{self.endpoint}"\nstate_dir = "{folder / "state"}"\n'
            f'socket = "{self.socket}"\nkey_file = "{keys}"\nauthorized_keys = "{authorized}"\n'
            f"lease_seconds = {lease}\n{sections}"
        )
        self.process = None

    def start(self, *more: str, wait: bool = True) -> Self:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TOPOD_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.launch, "--config", str(self.config), *more],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + START_SECONDS
        while wait and self.process.poll() is None and time.monotonic() < end:
            try:
                if getattr(self.ask(Hello(), 1.0), "pid", None) == self.process.pid:
                    return self
            except TopodError:
                time.sleep(0.02)
        if not wait:
            return self
        raise AssertionError(f"the coordinator does not answer; its log:\n{self.log.read_text()}")

    def ask(self, request: AnyRequest, timeout: float = 5.0) -> AnyReply:
        with Client(self.socket) as client:
            return client.ask(request, timeout=timeout)


class Fleet:
    """A coordinator and its hosts; `close` leaves no process behind."""

    def __init__(
        self,
        folder: Path,
        hosts: tuple[str, ...] = ("a", "b", "c"),
        kind: str = "dgx1",
        *,
        lease: float = 60.0,
        listen: str = "",
        launch: Callable[[str, str], Sequence[str]] = lambda _, __: (),
    ) -> None:
        """`launch` makes of a host's name (`head`: the coordinator's) and a module the command that runs it."""
        self.runs = folder / "runs"
        self.runs.mkdir(parents=True)
        self.authorized = folder / "authorized_keys"
        self.keys = create_key_file(folder / "coordinator.key", Kind.COORDINATOR, "head")
        self.user = create_key_file(folder / "alice.key", Kind.USER, "alice")
        authorize(
            self.authorized,
            Entry(
                public=self.user.public,
                kind=Kind.USER,
                name="alice",
                roles=frozenset({Role.SUBMIT, Role.VIEW}),
            ),
        )
        self.folder = folder
        self._lease = lease
        self._listen = listen
        self._launch = launch
        self.coordinator = self._head()
        self.hosts = {name: self._host(folder / name, name, kind) for name in hosts}

    def _head(self) -> CoordinatorProcess:
        return CoordinatorProcess(
            self.folder / "head",
            self.folder / "coordinator.key",
            self.authorized,
            lease=self._lease,
            listen=self._listen,
            launch=self._launch("head", "topod.coordinator"),
        )

    @property
    def endpoints(self) -> list[str]:
        """Return where its coordinators are."""
        return [self.coordinator.endpoint]

    def _host(self, folder: Path, name: str, kind: str) -> Topod:
        folder.mkdir()
        key = create_key_file(folder / "host.key", Kind.HOST, name)
        authorize(self.authorized, Entry(public=key.public, kind=Kind.HOST, name=name))
        config = folder / "topod.toml"
        config.write_text(
            f"[fleet]\ncoordinator = {self.endpoints}\n"
            f'coordinator_key = "{PUBLIC}{self.keys.public}"\n'
            f'key_file = "{folder / "host.key"}"\nname = "{name}"\nlabels = {{ rack = "{name}" }}\n'
        )
        return Topod(
            folder,
            host=kind,
            environment={"TOPOD_CONFIG": str(config)},
            log_level="info",
            launch=self._launch(name, "topod.daemon"),
        )

    def __enter__(self) -> Self:
        self.coordinator.start()
        for topod in self.hosts.values():
            topod.start(wait=False)
        for topod in self.hosts.values():
            topod.until_it_answers()
        self.until(lambda: [host.state for host in self.host_views()] == ["ready"] * len(self.hosts))
        return self

    def __exit__(self, *_: object) -> None:
        if self.coordinator.process is not None:
            self.coordinator.kill()
        for topod in self.hosts.values():
            topod.close()

    def remote(self, keys: KeyPair | None = None) -> Remote:
        """Return the coordinator as a user elsewhere reaches it."""
        places = tuple(Coordinator(endpoint=place, key=self.keys.public) for place in self.endpoints)
        return Remote(coordinators=places, keys=keys or self.user)

    def ask(self, request: AnyRequest, timeout: float = 5.0) -> AnyReply:
        return self.coordinator.ask(request, timeout)

    def submit(
        self, rest: str, *, gpus: int = 8, priority: int = 500, token: str = "", **more: object
    ) -> JobView:
        """Queue a job that tells of itself and then does the rest."""
        work = WITNESS.format(runs=self.runs) + rest
        spec = JobSpec(
            name="t",
            command=("sh", "-c", work),
            request=ResourceRequest(gpus=gpus, priority=priority),
            grace_seconds=5.0,
        )
        return _jobs(self.ask(Submit(spec=spec, token=token, **more)))[0]  # type: ignore[arg-type]  # test shorthand

    def through_crashes(self, work: Callable[[], JobView]) -> JobView:
        """Return what comes of it, asked again where the coordinator ended meanwhile and is started anew."""
        end = time.monotonic() + 2 * START_SECONDS
        while True:
            try:
                return work()
            except TopodError:
                assert time.monotonic() < end, self.coordinator.log.read_text()
                process = self.coordinator.process
                assert process is not None
                if process.poll() is not None:
                    self.coordinator.start()
                time.sleep(0.05)

    def job(self, ident: int) -> JobView:
        return _jobs(self.ask(GetJob(job=ident)))[0]

    def wait(self, ident: int, *states: str, timeout: float = 50.0) -> JobView:
        return _jobs(self.ask(WaitJob(job=ident, states=list(states), timeout=timeout), timeout + 10))[0]

    def jobs(self) -> list[JobView]:
        return _jobs(self.ask(ListJobs()))

    def cancel(self, *idents: int) -> None:
        self.ask(Cancel(jobs=list(idents)))

    def events(self) -> list[EventView]:
        reply = self.ask(ReadEvents(since=0, limit=10_000))
        assert isinstance(reply, Events)
        return reply.events

    def host_views(self) -> list[FleetHostView]:
        reply = self.ask(GetHosts())
        assert isinstance(reply, Hosts)
        return reply.hosts

    def witness(self) -> list[str]:
        """Return what the jobs told of themselves."""
        file = self.runs / "witness"
        return file.read_text().splitlines() if file.exists() else []

    def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = [self.coordinator.log, *(topod.log for topod in self.hosts.values())]
                told = "\n".join(f"--- {log}\n{log.read_text()[-6000:]}" for log in logs)
                raise AssertionError(f"it did not come to that; the logs:\n{told}")
            time.sleep(0.05)


def _jobs(reply: AnyReply) -> list[JobView]:
    assert isinstance(reply, Jobs)
    return reply.jobs

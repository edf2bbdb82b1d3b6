"""A real fleet with several coordinators that share a real etcd, under a stream of submits that counts what ran."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from tests.etcd_cluster import EtcdCluster
from tests.integration.fleet_process import WITNESS, CoordinatorProcess, Fleet, free_port
from topod.errors import TopodError
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.client import Client, RemoteError
from topod.protocol.replies import AnyReply, Failure, FleetChanges, Jobs
from topod.protocol.requests import AnyRequest, Follow, Hello, Submit
from topod.protocol.views import JobView
from topotui.feed import Feed
from topotui.fleet_picture import FleetPicture

LEASE = 5
SECONDS = 120.0
ENDS = 'sleep 0.2; echo "$TOPOD_FLEET_JOB ends" >> {runs}/witness'


class SharedFleet(Fleet):
    """Some coordinators on one etcd, the hosts of a fleet, and who submits jobs all the time."""

    def __init__(
        self,
        folder: Path,
        etcd: EtcdCluster,
        heads: tuple[str, ...] = ("one", "two"),
        hosts: tuple[str, ...] = ("a", "b"),
        *,
        addresses: dict[str, str] | None = None,
        launch: Callable[[str, str], Sequence[str]] = lambda _, __: (),
    ) -> None:
        """`addresses` of the coordinators, where they are in networks of their own; `launch` as in `Fleet`."""
        self.etcd = etcd
        self.heads: dict[str, CoordinatorProcess] = {}
        self._names = heads
        self._addresses = addresses or {}
        super().__init__(folder, hosts, launch=launch)

    def _head(self) -> CoordinatorProcess:
        for name in self._names:
            self.heads[name] = CoordinatorProcess(
                self.folder / name,
                self.folder / "coordinator.key",
                self.authorized,
                listen=f"tcp://{self._addresses.get(name, '127.0.0.1')}:{free_port()}",
                launch=self._launch(name, "topod.coordinator"),
                sections=f'[store]\nkind = "etcd"\nendpoints = {self.etcd.endpoints}\nlease_seconds = {LEASE}\n',
            )
        return self.heads[self._names[0]]

    @property
    def endpoints(self) -> list[str]:
        return [head.endpoint for head in self.heads.values()]

    def __enter__(self) -> Self:
        for head in self.heads.values():
            head.start(wait=False)
        for topod in self.hosts.values():
            topod.start(wait=False)
        for topod in self.hosts.values():
            topod.until_it_answers()
        self.until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for head in self.heads.values():
            if head.process is not None:
                head.kill()
        for topod in self.hosts.values():
            topod.close()

    def until_ready(self) -> None:
        """Wait until somebody leads whom all hosts have told how they stand."""

        def ready() -> bool:
            try:
                return [host.state for host in self.host_views()] == ["ready"] * len(self.hosts)
            except TopodError:
                return False

        self.until(ready, SECONDS)

    def ask(self, request: AnyRequest, timeout: float = 5.0) -> AnyReply:
        """Return the answer of the coordinator that leads, asked by its Unix socket."""
        end = time.monotonic() + SECONDS
        while True:
            for head in self.heads.values():
                if head.process is None:
                    continue
                try:
                    with Client(head.socket) as client:
                        return client.ask(request, timeout)
                except RemoteError:
                    raise
                except TopodError:
                    pass  # it stands by, or is just being killed
            assert time.monotonic() < end, "nobody leads"
            time.sleep(0.05)

    def leader(self) -> str:
        """Return the name of the coordinator that leads."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for name, head in self.heads.items():
                if head.process is not None and "leads for the" in self.standing(name):
                    return name
            time.sleep(0.05)
        raise AssertionError("nobody leads")

    def leader_and_others(self) -> tuple[str, list[str]]:
        """Return the names of the coordinator that leads and of those that stand by, once all run."""
        self.until(lambda: all(self.standing(name) for name in self.heads), SECONDS)
        leader = self.leader()
        return leader, [name for name in self.heads if name != leader]

    def standing(self, name: str) -> str:
        """Return what a coordinator says of itself."""
        try:
            return str(getattr(self.heads[name].ask(Hello(), 2.0), "runtime_text", ""))
        except TopodError:
            return ""

    def stream(self) -> "Stream":
        return Stream(self)

    def follower(self) -> "Follower":
        return Follower(self)


class Stream:
    """Submits short jobs, one after the other, until it is left; then each of them has run exactly once."""

    def __init__(self, fleet: SharedFleet) -> None:
        self._fleet = fleet
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._submit, name="stream")
        self.jobs: list[int] = []
        self._before = set(fleet.witness())

    def __enter__(self) -> Self:
        self._thread.start()
        self.goes_on()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop.set()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        if kind is None:
            self._check()

    def goes_on(self, jobs: int = 3) -> None:
        """Wait until so many more jobs were submitted from now on, and have ended."""
        wanted = len(self.jobs) + jobs
        self._fleet.until(lambda: len(self.jobs) >= wanted, SECONDS)
        new = {f"{ident} ends" for ident in self.jobs[wanted - jobs : wanted]}
        self._fleet.until(lambda: new <= set(self._fleet.witness()), SECONDS)

    def _submit(self) -> None:
        work = (WITNESS + ENDS).format(runs=self._fleet.runs)
        spec = JobSpec(name="s", command=("sh", "-c", work), request=ResourceRequest(gpus=1))
        while not self._stop.is_set():
            request = Submit(spec=spec, token=uuid.uuid4().hex)
            while (job := self._once(request)) is None:
                time.sleep(0.05)
            self.jobs.append(job.id)
            self._stop.wait(0.3)

    def _once(self, request: Submit) -> JobView | None:
        """Submit by all coordinators in turn, as their own users do; None: to be tried again."""
        for head in list(self._fleet.heads.values()):
            if head.process is None:
                continue
            try:
                with Client(head.socket) as client:
                    reply = client.ask(request, timeout=2.0)
            except TopodError:
                continue
            assert isinstance(reply, Jobs), isinstance(reply, Failure) and reply.text
            return reply.jobs[0]
        return None

    def _check(self) -> None:
        """Assert that nothing was lost or doubled, whatever the coordinators believe."""
        assert len(set(self.jobs)) == len(self.jobs)
        ends = {f"{ident} ends" for ident in self.jobs}
        self._fleet.until(lambda: ends <= set(self._fleet.witness()), SECONDS)
        told = Counter(self._fleet.witness())
        wrong = {
            line: times
            for line, times in told.items()
            if times > 1 or "runs twice" in line or "shares" in line
        }
        assert wrong == {}, wrong
        known = {f"{ident} {verb}" for ident in self.jobs for verb in ("begins", "ends")}
        # The token of each submit led to one job only.
        assert {line for line in told if line.endswith("ends")} - known - self._before == set()


class Follower:
    """Watches the fleet as `topoctl top` does, until it is left."""

    def __init__(self, fleet: SharedFleet) -> None:
        self._fleet = fleet
        self._lock = threading.Lock()
        self._picture = FleetPicture()
        self._lives: list[str] = []
        self._feed = Feed(
            FleetChanges,
            lambda: Client(fleet.remote()),
            lambda: self._picture.cursor,
            on_changes=self._take,
            on_away=lambda _: None,
        )

    def __enter__(self) -> Self:
        self._feed.start()
        self._fleet.until(lambda: bool(self._lives), SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.stop()

    def _take(self, changes: FleetChanges) -> None:
        with self._lock:
            self._picture.take(changes)
            if changes.life not in self._lives:
                self._lives.append(changes.life)

    def sees_the_same_as_who_comes_now(self, *, leaderships: int, ended: Sequence[int]) -> None:
        """Assert that nothing was missed: after so many leaderships, of jobs that `ended` meanwhile, of events."""

        def agrees() -> bool:
            fresh = FleetPicture()
            with Client(self._fleet.remote()) as client:
                changes = client.ask(Follow(life="", since=0, event=0, seconds=0.0), SECONDS)
            assert isinstance(changes, FleetChanges)
            fresh.take(changes)
            with self._lock:
                mine = self._picture
                # A job's last word is in its file a moment before its host tells of its end.
                return set(ended) <= set(mine.ended) and (
                    mine.jobs,
                    mine.rows,
                    mine.about,
                    mine.layouts,
                    mine.cursor,
                ) == (
                    fresh.jobs,
                    fresh.rows,
                    fresh.about,
                    fresh.layouts,
                    fresh.cursor,
                )

        self._fleet.until(agrees, SECONDS)
        with self._lock:
            assert len(self._lives) == leaderships
            numbers = [event.seq for event in self._picture.events]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))

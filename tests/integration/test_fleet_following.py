"""Who follows a fleet is told which hosts and jobs changed, and has the whole picture at every moment."""

from collections.abc import Callable
from pathlib import Path

from tests.integration.fleet_process import Fleet
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.client import Client
from topod.protocol.replies import FleetChanges, Jobs
from topod.protocol.requests import Drain, DrainHost, Follow, Submit
from topod.protocol.views import EventView, FleetNow, FleetRow, FreeGroup, HeldGpus, JobLine, KindView

SECONDS = 60.0


class Watcher:
    """Somebody who takes in every answer."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.last = FleetChanges(life="", number=0, now=0.0)
        self.rows: dict[str, FleetRow] = {}
        self.jobs: dict[int, JobLine] = {}
        self.kinds: dict[str, KindView] = {}
        self.now: FleetNow | None = None
        self.events: list[EventView] = []

    def look(self, seconds: float = 20.0) -> FleetChanges:
        event = self.events[-1].seq if self.events else 0
        ask = Follow(life=self.last.life, since=self.last.number, event=event, seconds=seconds)
        reply = self.client.ask(ask, seconds + SECONDS)
        assert isinstance(reply, FleetChanges)
        self.last = reply
        if reply.whole:
            self.rows, self.jobs = {}, {}
        self.rows |= {row.name: row for row in reply.hosts}
        self.jobs |= {job.id: job for job in reply.jobs}
        self.kinds |= {kind.name: kind for kind in reply.kinds}
        self.now = reply.changed or self.now
        self.events += reply.events
        return reply

    def until(self, done: Callable[[], bool]) -> list[FleetChanges]:
        answers = []
        while not done():
            answers.append(self.look())
        return answers

    def no_event_is_missed(self) -> bool:
        numbers = [event.seq for event in self.events]
        return numbers == list(range(1, len(numbers) + 1))


def test_changes_of_hosts_and_jobs_are_told_and_after_a_restart_all_anew(tmp_path: Path) -> None:
    with Fleet(tmp_path, hosts=("a", "b")) as fleet, Client(fleet.remote()) as client:
        watcher = Watcher(client)
        assert watcher.look().whole
        whole = [FreeGroup("nvlink", 8, 1)]
        assert [(row.name, row.state, row.gpus, row.free) for _, row in sorted(watcher.rows.items())] == [
            ("a", "ready", 8, whole),
            ("b", "ready", 8, whole),
        ]
        assert watcher.rows["a"].emulated
        kind = watcher.kinds[watcher.rows["a"].kind]
        assert [place.island for place in kind.gpus] == [0] * 4 + [4] * 4

        low = fleet.submit("sleep 600", gpus=4, priority=100)
        answers = watcher.until(lambda: low.id in watcher.jobs and watcher.jobs[low.id].state == "running")
        (host,) = watcher.jobs[low.id].hosts
        assert {row.name for answer in answers for row in answer.hosts} == {host}
        assert not any(answer.whole for answer in answers)
        (held,) = watcher.rows[host].held
        assert (held.ident, held.priority, held.job, held.gpus.bit_count()) == (str(low.id), 100, low.id, 4)

        # What is drained there, and what a host's own user started, is told as well.
        spec = JobSpec(name="own", command=("sleep", "600"), request=ResourceRequest(gpus=1, priority=500))
        with Client(fleet.hosts[host].socket) as there:
            own = there.ask(Submit(spec=spec))
            assert isinstance(own, Jobs)
            there.ask(Drain(gpu="7", reason="fan"))
        watcher.until(lambda: len(watcher.rows[host].held) == 2 and bool(watcher.rows[host].blocked))
        assert (watcher.rows[host].blocked[0].state, watcher.rows[host].blocked[0].gpus) == (
            "drained",
            1 << 7,
        )
        other = next(one for one in watcher.rows[host].held if one.job is None)
        assert other == HeldGpus(f"{own.jobs[0].id} of {host}", 500, other.gpus)

        fleet.ask(DrainHost(host=host, reason="disk"))
        watcher.until(lambda: watcher.rows[host].state == "cordoned")
        assert watcher.rows[host].reason == "disk"
        fleet.cancel(low.id)
        watcher.until(lambda: watcher.jobs[low.id].state == "cancelled")
        assert watcher.no_event_is_missed()

        # What comes and goes while nobody looks is told.
        fleet.cancel(brief := fleet.submit("true", select=["no=where"]).id)
        watcher.until(lambda: (watcher.events[-1].job, watcher.events[-1].name) == (brief, "job.cancelled"))
        assert watcher.jobs[brief].state == "cancelled"

        # A host that dies is told, and so is all after another leadership began.
        fleet.hosts["b"].kill()
        watcher.until(lambda: watcher.rows["b"].state == "silent")
        assert watcher.rows["b"].heard_at is not None
        life = watcher.last.life
        fleet.coordinator.kill()
        fleet.coordinator.start()
        fleet.cancel(brief := fleet.submit("true", select=["no=where"]).id)
        with Client(fleet.remote()) as again:
            watcher.client = again
            assert watcher.look().whole
            assert watcher.jobs[brief].state == "cancelled"
            assert watcher.last.life != life
            watcher.until(lambda: watcher.rows["a"].gpus == 8)
            assert watcher.rows["b"].state == "away"
            assert watcher.rows["b"].gpus is None
            assert watcher.now is not None
            assert watcher.now.epoch == 2
            later = fleet.submit("sleep 600", gpus=1)
            watcher.until(lambda: later.id in watcher.jobs)
            assert watcher.no_event_is_missed()

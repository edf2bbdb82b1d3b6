"""Who follows a host is told what changed, when it does, and has the whole picture at every moment."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon_process import Topod, topod_in
from topod.protocol.client import Client
from topod.protocol.replies import Changes
from topod.protocol.requests import Cancel, Drain, Follow
from topod.protocol.views import EventView, GpuView, JobLine

SECONDS = 30.0


@pytest.fixture
def topod(tmp_path: Path) -> Iterator[Topod]:
    yield from topod_in(tmp_path / "d")


class Watcher:
    """Somebody who takes in every answer."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.last = Changes(life="", number=0, now=0.0)
        self.jobs: dict[int, JobLine] = {}
        self.gpus: dict[int, GpuView] = {}
        self.events: list[EventView] = []
        self.answers = 0

    def look(self, seconds: float = SECONDS) -> Changes:
        event = self.events[-1].seq if self.events else 0
        ask = Follow(life=self.last.life, since=self.last.number, event=event, seconds=seconds)
        reply = self.client.ask(ask, seconds + SECONDS)
        assert isinstance(reply, Changes)
        self.last = reply
        if reply.whole:
            self.jobs, self.gpus = {}, {}
        self.jobs.update({job.id: job for job in reply.jobs})
        self.gpus.update({gpu.index: gpu for gpu in reply.gpus})
        self.events += reply.events
        self.answers += 1
        return reply

    def until_state(self, job: int, state: str) -> None:
        while job not in self.jobs or self.jobs[job].state != state:
            self.look()


def test_changes_are_told_when_they_happen_and_only_they(topod: Topod) -> None:
    with Client(topod.socket) as client:
        watcher = Watcher(client)
        first = watcher.look()
        assert first.whole
        assert first.host is not None
        assert [gpu.state for gpu in watcher.gpus.values()] == ["free"] * 8
        rest = topod.submit("sleep", "600", gpus=2)
        watcher.until_state(rest.id, "running")
        held = {index for index, gpu in watcher.gpus.items() if gpu.job == rest.id}
        assert held == set(watcher.jobs[rest.id].gpu_indices)
        short = topod.submit("true", gpus=1)
        told: set[int] = set()
        while short.id not in watcher.jobs or watcher.jobs[short.id].state != "succeeded":
            answer = watcher.look()
            assert not answer.whole
            told |= {job.id for job in answer.jobs}
        assert told == {short.id}
        assert [event.seq for event in watcher.events] == list(range(1, len(watcher.events) + 1))


def test_a_question_waits_for_a_change(topod: Topod) -> None:
    with Client(topod.socket) as client:
        watcher = Watcher(client)
        while watcher.look(0.0).readings == [] or watcher.look(0.0).jobs:
            pass
        asked = threading.Event()

        def later() -> None:
            asked.wait()
            topod.ask(Drain(reason="fan"))

        helper = threading.Thread(target=later)
        helper.start()
        asked.set()
        drain = None
        while drain is None:
            changed = watcher.look().changed
            drain = changed.drain if changed else None
        helper.join()
    assert drain == "fan"


def test_a_job_that_ends_before_anybody_looks_again_is_told(topod: Topod) -> None:
    with Client(topod.socket) as client:
        watcher = Watcher(client)
        watcher.look()
        job = topod.submit("sh", "-c", "exit 3")
        topod.wait(job.id)
        watcher.until_state(job.id, "failed")
        assert watcher.jobs[job.id].exit_code == 3


def test_after_a_restart_all_is_told_anew_and_no_event_is_missed(topod: Topod) -> None:
    with Client(topod.socket) as client:
        watcher = Watcher(client)
        job = topod.submit("sleep", "600", gpus=4)
        watcher.until_state(job.id, "running")
        life = watcher.last.life
        topod.kill()
        topod.start()
        topod.ask(Cancel(jobs=[job.id]))
        topod.wait(job.id)
    with Client(topod.socket) as client:
        watcher.client = client
        answer = watcher.look()
        assert answer.whole
        assert answer.life != life
        assert watcher.jobs[job.id].state == "cancelled"
        numbers = [event.seq for event in watcher.events]
        assert numbers == list(range(1, len(numbers) + 1))
        assert watcher.events[-1].name == "job.cancelled"

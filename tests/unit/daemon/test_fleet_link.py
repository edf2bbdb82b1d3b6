"""What a host says to its coordinator, and whom it takes for it."""

import asyncio

import pytest

from tests.fakes.link_scene import Play, Scene, assign
from tests.fakes.world import spec
from topod.daemon.fleet_link import TURNS_AT_ONCE
from topod.lifecycle import events as ev
from topod.protocol import link
from topod.protocol import replies as rp
from topod.protocol import requests as rq


def test_a_host_looks_for_who_leads_and_not_over_and_over_for_who_is_dead(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.until(lambda: scene.full)
        scene.wire.say(link.NotLeader())
        await asyncio.sleep(0.5)
        assert scene.wire.moved == 0
        for _ in range(5):
            scene.wire.say(link.NotLeader(leader="tcp://x:1"))
        await asyncio.sleep(0.5)
        assert scene.wire.moved == TURNS_AT_ONCE
        scene.wire.say(link.NotLeader(leader="tcp://y:1"))
        await asyncio.sleep(0.5)
        assert scene.wire.moved == TURNS_AT_ONCE + 1
        reports = len(scene.full)
        await scene.until(lambda: len(scene.full) > reports)

    play(story)


def test_a_host_says_hello_and_reports(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.until(lambda: scene.full)
        hello = scene.hellos[0]
        assert (hello.host, hello.labels, hello.runtime) == ("node-a", {"rack": "3"}, "docker")
        assert hello.document["gpus"]
        report = scene.full[-1]
        assert report.session == hello.session
        assert report.snapshot is not None
        assert (report.snapshot.host, report.snapshot.labels) == ("node-a", {"rack": "3"})
        assert report.jobs == []
        assert report.wall == pytest.approx(scene.world.wall, abs=1.0)

    play(story)


def test_contents_are_repeated_until_they_are_seen_and_then_hearts_beat(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await asyncio.sleep(10.0)
        assert len(scene.full) == len(scene.reports) > 3
        await scene.order()
        await asyncio.sleep(1.0)
        told = len(scene.full)
        await asyncio.sleep(20.0)
        await scene.order()
        await asyncio.sleep(20.0)
        assert len(scene.full) == told
        assert len(scene.reports) > told + 10
        assert {one.since for one in scene.reports[-5:]} == {scene.full[-1].seq}
        assert [one.seq for one in scene.reports] == sorted(one.seq for one in scene.reports)

    play(story)


def test_what_changes_is_told_at_once_and_much_of_it_together(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order()
        before = len(scene.full)
        for _ in range(50):
            await scene.mailbox.post(ev.Submitted(spec=spec("cpu", gpus=1, image=None)))
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
        assert 1 <= len(scene.full) - before <= 6

    play(story)


def test_a_coordinator_that_knows_nothing_is_told_all_again(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order()
        told, hellos = len(scene.full), len(scene.hellos)
        scene.wire.say(link.Who())
        await scene.until(lambda: len(scene.hellos) > hellos and len(scene.full) > told, 1.0)

    play(story)


def test_a_host_that_cannot_take_anything_new_is_closed(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.until(lambda: scene.full and scene.full[-1].snapshot.closed is None)  # type: ignore[union-attr] # full
        scene.health.trouble("store", "the disk is full")
        await scene.until(lambda: scene.full[-1].snapshot.closed)  # type: ignore[union-attr] # full
        assert "store: the disk is full" in scene.reports[-1].troubles

    play(story)


def answers(scene: Scene) -> list[link.HostAnswer]:
    return [one for one in scene.heard if isinstance(one, link.HostAnswer)]


def test_a_question_is_answered_in_the_name_of_who_asked(play: Play) -> None:
    async def story(scene: Scene) -> None:
        asked = rq.Exec(job=1, command=["ls"], by="mallory")
        scene.wire.say(link.HostAsk(id="q1", user="alice", request=asked))
        scene.wire.say(link.HostAsk(id="q2", user="alice", request=rq.GetJob(job=12)))
        await scene.until(lambda: len(answers(scene)) == 2)
        replies = {one.id: one.reply for one in answers(scene)}
        assert replies["q1"] == rp.Done(text="done")
        assert isinstance(replies["q2"], rp.Failure)
        assert replies["q2"].text == "no job 12"
        assert [one.by for one in scene.asked if isinstance(one, rq.Exec)] == ["alice"]

    play(story)


def test_a_coordinator_that_is_silent_is_told_of_and_another_one_tried_less_and_less_often(
    play: Play,
) -> None:
    async def story(scene: Scene) -> None:
        await scene.order()
        scene.wire.trouble = "connection refused"
        await asyncio.sleep(400.0)
        assert scene.health.notes == ["fleet: the coordinator is not heard: connection refused"]
        assert 5 <= scene.wire.moved <= 10
        await scene.order()
        assert not scene.health.notes

    play(story)


def test_a_host_that_is_turned_away_says_why_and_comes_back_ever_less_often(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(scene: Scene) -> None:
        def turn_away(message: link.AnyFromHost) -> None:
            scene.heard.append(message)
            if refusing:
                scene.wire.say(link.TurnedAway(reason="its name is in use"))

        refusing, scene.wire._hear = True, turn_away
        await scene.until(lambda: scene.health.notes)
        await asyncio.sleep(300.0)
        assert scene.health.notes == ["fleet: turned away by the coordinator: its name is in use"]
        assert 10 <= scene.wire.moved <= 30
        assert len(scene.heard) <= 2 * scene.wire.moved + 4
        assert 4 <= [record.message for record in caplog.records].count("fleet.turned-away") <= 6
        refusing = False
        reports = len(scene.reports)
        await scene.until(lambda: len(scene.reports) > reports)
        await scene.order(assign=[assign()])
        assert (len(scene.jobs), scene.health.notes) == (1, [])

    play(story)


def test_what_is_no_message_is_passed_over(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.until(lambda: scene.reports)
        for bad in (b"", b"{", b"[" * 100_000, b'{"kind": "orders"}'):
            scene.wire._inbox.put_nowait(bad)
        await scene.order(assign=[assign()])
        assert len(scene.jobs) == 1

    play(story)

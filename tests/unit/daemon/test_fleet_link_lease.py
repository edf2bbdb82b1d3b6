"""When a host's lease ends, and what becomes of the fleet's jobs there."""

import asyncio
from pathlib import Path

from tests.fakes.link_scene import LEASE, Play, Scene, assign
from topod.daemon.lease import Lease
from topod.lifecycle.states import HostState, JobState


def test_when_the_lease_ends_what_may_run_elsewhere_is_given_back(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(assign=[assign()])
        await asyncio.sleep(LEASE - 5.0)
        states = [scene.jobs[0].state]
        await asyncio.sleep(8.0)
        states.append(scene.jobs[0].state)
        assert states == [JobState.PENDING, JobState.RETURNED]

    play(story)


def test_the_lease_counts_from_when_the_report_was_sent_that_it_answers(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.until(lambda: scene.reports)
        sent = scene.reports[-1].sent
        await asyncio.sleep(20.0)
        await scene.order(echo=sent)
        assert scene.lease.until == sent + LEASE
        await scene.order(echo=scene.now() + 1000.0)
        assert scene.lease.until == sent + LEASE, "no such report was sent yet"

    play(story)


def test_a_clock_that_differs_from_the_coordinators_is_told_until_it_agrees(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.until(lambda: scene.reports)
        for ahead, told in ((7.5, ["clock: the clock is 7.5 s behind the coordinator's"]), (0.5, [])):
            await scene.order(wall=scene.world.wall + ahead, echo=scene.now())
            assert scene.health.notes == told
            known = scene.health.coordinator_ahead
            assert known is not None
            assert abs(known.seconds - ahead) <= known.within + 1e-6
        await scene.order(wall=scene.world.wall + 60.0, echo=scene.now() - 30.0)
        assert scene.health.notes == [], "an answer to a report of half a minute ago says nothing of clocks"

    play(story)


def test_a_topod_that_comes_back_knows_whether_the_lease_is_over(tmp_path: Path) -> None:
    file = tmp_path / "lease"
    Lease(file, "boot").renew(100.0)
    assert Lease(file, "boot").left(40.0) == 60.0
    assert Lease(file, "another boot").left(40.0) == 0.0
    assert Lease(file, "").left(40.0) == 0.0
    file.write_text("{")
    assert Lease(file, "boot").left(40.0) == 0.0
    assert Lease(tmp_path / "no folder" / "lease", "boot").left(40.0) == 0.0


def test_a_lease_that_cannot_be_written_down_still_holds(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "no folder" / "lease", "boot")
    lease.renew(100.0)
    assert lease.left(40.0) == 60.0


def test_after_a_restart_without_a_lease_nothing_of_the_fleet_is_begun(play: Play) -> None:
    first: list[HostState] = []

    async def before(scene: Scene) -> None:
        await scene.order(assign=[assign()])
        first.append(scene.mailbox.state)

    play(before).lease.path.unlink()

    async def after(scene: Scene) -> None:
        await asyncio.sleep(1.0)
        assert scene.jobs[0].state is JobState.RETURNED

    play(after, first[0])

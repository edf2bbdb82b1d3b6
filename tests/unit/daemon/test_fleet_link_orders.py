"""What a host does with its coordinator's orders: lost, late, repeated, and by whom they are."""

import asyncio
from dataclasses import replace

import pytest

from tests.fakes.link_scene import LEASE, Play, Scene, assign
from tests.fakes.world import spec
from topod.daemon.fleet_link import EPOCH
from topod.lifecycle.states import JobState
from topod.model.assignment import Revoke, Settled
from topod.model.job import JobSpec, Secret


def test_an_assignment_is_taken_reported_and_forgotten_when_it_is_settled(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(assign=[assign()])
        await scene.until(lambda: scene.full[-1].jobs)
        job = scene.jobs[0]
        assert job.spec.container_user == "1000", "as the policy of the host has it"
        assert job.state is JobState.PENDING
        await scene.order(assign=[assign()])
        assert len(scene.jobs) == 1
        await scene.order(revoke=[Revoke(job=7, fence=1)])
        await scene.until(lambda: scene.full[-1].jobs and scene.full[-1].jobs[0].state == "cancelled")
        await scene.order(settled=[Settled(job=7, fence=1)])
        await scene.until(lambda: scene.full[-1].jobs == [])
        assert scene.mailbox.state.settled_fence == 1

    play(story)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (spec("t", gpus=1, image="i", container_user="root"), "not allowed by this host's policy: user root"),
        (spec("t", gpus=1, image="i", secrets=(Secret(name="key", source="/nowhere"),)), "secret key: "),
        (spec("t", gpus=1, image="no image"), "not the name of an image"),
        (spec("t", gpus=4, image="i"), "can never run this job"),
    ],
)
def test_what_submit_would_refuse_is_refused_with_its_reason(play: Play, bad: JobSpec, why: str) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(assign=[replace(assign(), spec=bad)])
        await scene.until(lambda: scene.full[-1].jobs)
        told = (scene.full[-1].jobs or [])[0]
        assert told.state == "refused"
        assert why in told.reason

    play(story)


def test_orders_of_another_session_an_earlier_leadership_or_that_come_late_are_ignored(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(seq=10)
        for old in ({"session": "other"}, {"epoch": 2, "seq": 99}, {"seq": 10}, {"seq": 9}):
            await scene.order(assign=[assign()], **({"seq": 50} | old))
            assert not scene.jobs, old
        await scene.order(assign=[assign()], seq=11)
        assert len(scene.jobs) == 1

    play(story)


def test_the_epoch_is_durable_before_it_is_acted_on(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(epoch=3)
        assert scene.facts.values[EPOCH] == "3"
        scene.facts.broken = True
        await scene.order(epoch=4, assign=[assign()])
        assert not scene.jobs
        scene.facts.broken = False
        await scene.order(epoch=4, assign=[assign()])
        assert len(scene.jobs) == 1
        assert scene.reports[-1].epoch == 4

    play(story)


def test_an_earlier_epoch_than_is_written_down_is_ignored_after_a_restart(play: Play) -> None:
    async def story(scene: Scene) -> None:
        scene.facts.values[EPOCH] = "5"
        await asyncio.sleep(0.1)
        await scene.order(epoch=4, assign=[assign()])
        assert not scene.jobs
        await scene.order(epoch=5, assign=[assign()])
        assert len(scene.jobs) == 1

    play(story)


def test_nothing_is_taken_without_a_lease_and_nothing_settled_beside_it(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(assign=[assign(fence=4, job=4)])
        await scene.order(revoke=[Revoke(job=4, fence=4, requeue=True)])
        await asyncio.sleep(LEASE + 1.0)
        done = [Settled(job=4, fence=4)]
        await scene.order(assign=[assign(fence=3)], settled=done, echo=0.0)
        assert [job.assignment.tag.fence for job in scene.jobs if job.assignment] == [4]
        await scene.order(assign=[assign(fence=3)], settled=done)
        assert [(job.assignment.tag.fence, job.assignment.taken) for job in scene.jobs if job.assignment] == [
            (3, True)
        ]

    play(story)


def test_the_priority_of_a_fleet_job_is_changed(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(assign=[assign()])
        await scene.order(priorities={7: 900, 8: 1})
        assert scene.jobs[0].priority == 900

    play(story)

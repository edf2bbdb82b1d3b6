"""A preemption as it is read from the host's story."""

import pytest

from topod.protocol.views import EventView
from topotui.timeline import Timeline


def event(seq: int, at: float, name: str, job: int, text: str = "", **data: object) -> EventView:
    return EventView(seq=seq, at=at, name=name, job=job, text=text, data=data)


PLAN = {
    "victims": [1, 2],
    "victim_reasons": [{"job": 1, "why": "holds GPU 0"}, {"job": 2, "why": "holds GPU 1"}],
}
STORY = [
    event(1, 10.0, "job.submitted", 3, priority=1000),
    event(2, 10.5, "job.placed", 3, "job 3 (serve): GPUs 0-1", plan=PLAN, decide_seconds=0.001),
    event(3, 11.0, "job.stopping", 1, "job 1 (low) is told to stop: x", by=3, cause="preempt"),
    event(4, 11.0, "job.stopping", 2, by=3, cause="preempt"),
    event(5, 12.0, "job.preempted", 1, by=3),
]
REST = [event(6, 14.0, "job.preempted", 2, by=3), event(7, 14.5, "job.started", 3, start_seconds=0.25)]


def test_a_preemption_has_its_victims_with_reasons_and_its_phases() -> None:
    timeline = Timeline()
    assert timeline.take(STORY)
    (one,) = timeline.all
    assert (one.label, one.open, one.freed_at) == ("job 3 (serve)", True, None)
    assert one.phases() == [("decide", pytest.approx(0.001)), ("create", 0.5)]
    assert timeline.take(REST)
    assert (one.priority, one.victims[0].label, one.launched_at) == (1000, "job 1 (low)", 14.25)
    assert [(victim.job, victim.why) for victim in one.victims] == [(1, "holds GPU 0"), (2, "holds GPU 1")]
    phases = [("create", 0.5), ("stop", 3.0), ("free", 0.25), ("start", 0.25)]
    assert one.phases()[1:] == phases
    assert not one.open


def test_a_victim_that_ends_by_itself_is_gone_too() -> None:
    timeline = Timeline()
    timeline.take([*STORY, event(6, 14.0, "job.succeeded", 2), event(7, 14.5, "job.started", 3)])
    (one,) = timeline.all
    assert [name for name, _ in one.phases()] == ["decide", "create", "stop", "start"]


def test_a_preemptor_that_gives_up_or_is_cancelled_ends_its_preemption() -> None:
    for name in ("job.unplaced", "job.cancelled"):
        timeline = Timeline()
        timeline.take([*STORY, event(6, 13.0, name, 3, "job 3 (serve) cancelled")])
        assert timeline.all[0].gave_up == "job 3 (serve) cancelled"
        assert timeline.all[0].started_at is None


def test_a_start_that_stops_nobody_is_no_preemption() -> None:
    timeline = Timeline()
    assert not timeline.take(
        [event(1, 1.0, "job.placed", 1, plan={"victims": []}), event(2, 2.0, "job.started", 1)]
    )
    assert timeline.all == []

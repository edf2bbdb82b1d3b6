"""A report: from what jobs and events tell to the page."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from itertools import pairwise

import pytest

from topoctl.commands.report import when
from topoctl.report.facts import Facts, Period, Placement, Preempted, Run, Stopped, Wait
from topoctl.report.gather import _before
from topoctl.report.html import ticks
from topoctl.report.page import About, report
from topoctl.report.reading import Source, host_facts, merged, queue_facts
from topoctl.report.sums import classes_of, edges, gpu_hours, spread, usage
from topoctl.report.svg import scale
from topod.errors import UsageError
from topod.protocol.views import EventView, JobLine

PERIOD = Period(since=1000.0, until=5000.0)
EVIL = "<script>alert('x')</script>\"&"
ABOUT = About(name="Host dgx1", made=5000.0, zone=UTC)


def line(ident: int, state: str = "succeeded", **fields: object) -> JobLine:
    base: dict[str, object] = {
        "name": "t", "user": "alice", "priority": 100, "gpus": 2, "affinity": "any", "policy": "guaranteed",
        "cpus": 0, "cpu_affinity": "numa", "submitted_at": 1100.0, "label": f"job {ident} (t)", "starts": 1,
    }  # fmt: skip
    return JobLine(id=ident, state=state, **{**base, **fields})  # type: ignore[arg-type]  # test shorthand


def event(at: float, name: str, job: int, **data: object) -> EventView:
    return EventView(
        seq=int(at), at=at, name=f"job.{name}", job=job, text=f"job {job} (t): {name}", data=data
    )


def source(jobs: Sequence[JobLine], *events: EventView) -> Source:
    return Source(name="dgx1", now=6000.0, jobs={job.id: job for job in jobs}, events=events, gpus=8)


def plan(*victims: int, gpus: int = 2, affinity: str = "any", steps: int = 0) -> dict[str, object]:
    return {
        "gpus": list(range(gpus)),
        "victims": list(victims),
        "affinity": affinity,
        "cost": {"affinity_steps": steps, "work_lost_gpu_seconds": 7.0},
        "victim_reasons": [{"job": one, "why": "holds GPU 0"} for one in victims],
        "alternative": {"decided_by": "victims: 1 of priority 100, instead of 2 of priority 100"},
    }


def spans(facts: Facts) -> list[tuple[float, float]]:
    return sorted((run.begin, run.end) for run in facts.runs)


def test_runs_are_those_of_the_story_also_where_it_begins_or_ends_within_them() -> None:
    facts = host_facts(
        source(
            [
                line(1),  # ran and was preempted, and ran again
                line(2, started_at=500.0),  # ran since before the period
                line(3, "running", started_at=400.0),  # all the time: no event tells of it
                line(4, "cancelled", started_at=300.0),  # preempted long ago, cancelled in the queue
                line(5, "cancelled", started_at=300.0),  # cancelled while it ran, since before the period
                line(6, "running", gpus=0, started_at=1200.0),
            ],
            event(1200.0, "started", 1),
            event(1500.0, "stopping", 1, by=9),
            event(1600.0, "preempted", 1),
            event(1600.5, "requeued", 1),
            event(1700.0, "succeeded", 2),
            event(1800.0, "cancelled", 4),
            event(1850.0, "stopping", 5),
            event(1900.0, "cancelled", 5),
            event(2000.0, "started", 1),
            event(5500.0, "succeeded", 1),
        ),
        PERIOD,
    )
    assert spans(facts) == [
        (400.0, 6000.0),
        (1000.0, 1700.0),
        (1000.0, 1900.0),
        (1200.0, 1600.0),
        (2000.0, 5500.0),
    ]


def test_a_job_told_to_stop_while_it_starts_counts_only_if_it_ran() -> None:
    story = [
        event(at, name, 1) for at, name in ((1200.0, "placed"), (1300.0, "stopping"), (1400.0, "cancelled"))
    ]
    assert spans(host_facts(source([line(1, started_at=None)], *story), PERIOD)) == []
    assert spans(host_facts(source([line(1, started_at=1250.0)], *story), PERIOD)) == [(1250.0, 1400.0)]


def test_a_job_that_is_not_listed_any_more_is_known_by_the_story() -> None:
    told = (
        event(1200.0, "submitted", 7, user="bob", priority=500),
        event(1300.0, "placed", 7, plan=plan(gpus=4)),
        event(1400.0, "started", 7),
        event(1500.0, "succeeded", 7),
    )
    facts = host_facts(source([], *told), PERIOD)
    assert facts.runs == [Run(user="bob", priority=500, gpus=4, begin=1400.0, end=1500.0)]
    assert queue_facts(source([], *told), PERIOD).waits == [Wait(priority=500, seconds=200.0)]


def test_a_wait_ends_with_the_first_start_and_only_that() -> None:
    facts = queue_facts(
        source(
            [
                line(1, submitted_at=900.0, starts=2),  # both starts are in the story
                line(2, submitted_at=100.0, starts=2),  # its first start is not
                line(3, "pending", submitted_at=4000.0, starts=0),
                line(4, "pending", submitted_at=100.0, starts=3),  # it waits, but not for its first start
                line(5, "cancelled", submitted_at=1100.0, ended_at=1200.0, starts=0),
                line(6, "running", submitted_at=4500.0, starts=1),  # started after the period
            ],
            event(1200.0, "started", 1),
            event(1300.0, "started", 2),
            event(1400.0, "started", 1),
            event(1500.0, "cancelled", 5),
            event(5100.0, "started", 6),
        ),
        PERIOD,
    )
    assert facts.waits == [Wait(priority=100, seconds=300.0)]
    assert sorted(wait.seconds for wait in facts.waiting) == [500.0, 1000.0]
    assert facts.counts == {"cancelled": 1}


def test_placements_tell_what_was_asked_for_and_preemptions_their_victims_and_phases() -> None:
    facts = host_facts(
        source(
            [line(1), line(9, priority=1000, label="job 9 (serve)")],
            event(900.0, "placed", 9, plan=plan(1)),  # before the period
            event(1200.0, "started", 1),
            event(1300.0, "placed", 2, plan=plan(affinity="socket", steps=2)),
            event(1301.0, "placed", 3, plan=plan(gpus=1)),
            event(1400.0, "placed", 9, plan=plan(1, affinity="nvlink")),
            event(1400.25, "stopping", 1, by=9),
            event(1402.0, "preempted", 1),
            event(1402.5, "started", 9),
        ),
        PERIOD,
    )
    assert facts.placements == [
        Placement(asked="pcie", got="socket"),
        Placement(asked="nvlink", got="nvlink"),
    ]
    assert [one.satisfied for one in facts.placements] == [False, True]
    (one,) = facts.preemptions
    assert (one.label, one.result, one.work_lost) == ("job 9 (serve)", "runs", 7.0)
    assert one.victims == (Stopped(label="job 1 (t)", why="holds GPU 0"),)
    assert one.phases == {"create": 0.25, "stop": 1.75, "start": 0.5, "all": 2.5}


def test_the_columns_over_time_hold_the_same_gpu_hours_as_the_tables() -> None:
    runs = [
        Run(user="alice", priority=100, gpus=2, begin=900.0, end=1600.0),
        Run(user="bob", priority=1000, gpus=8, begin=1234.5, end=9000.0),
    ]
    classes, times = classes_of(PERIOD, runs, []), edges(PERIOD, 0.0)
    shared = [PERIOD.overlap(*pair) for pair in pairwise(times)]
    whole = sum(
        sum(row) * span for row, span in zip(usage(PERIOD, runs, classes, times), shared, strict=True)
    )
    assert whole / 3600 == pytest.approx(sum(map(sum, gpu_hours(PERIOD, runs, classes).values())))
    assert (times[0] <= PERIOD.since, times[-1] >= PERIOD.until) == (True, True)


@pytest.mark.parametrize("days", [0.0001, 0.5, 1, 7, 30, 365, 3650])
def test_any_period_has_a_readable_number_of_columns_and_texts(days: float) -> None:
    period = Period(since=1_795_000_000.0, until=1_795_000_000.0 + days * 86400)
    times = edges(period, 0.0)
    assert 1 <= len(times) - 1 <= 140
    shown = [text for _, text in ticks(times, UTC)]
    assert len(set(shown)) == len(shown) <= 9
    assert shown or days < 0.01


def test_very_many_priorities_are_seven_classes() -> None:
    runs = [Run(user="a", priority=number, gpus=number, begin=1000.0, end=2000.0) for number in range(1, 40)]
    classes = classes_of(PERIOD, runs, [])
    assert classes.names == ["34", "35", "36", "37", "38", "39", "others"]
    assert [classes.index(number) for number in (39, 34, 1)] == [5, 0, 6]


def facts_with(text: str) -> Facts:
    return Facts(
        period=PERIOD,
        gpus=8,
        runs=[Run(user=text, priority=100, gpus=2, begin=1000.0, end=2000.0)],
        placements=[Placement(asked="nvlink", got="socket")],
        waits=[Wait(priority=1000, seconds=3.0)],
        preemptions=[
            Preempted(
                at=1500.0,
                host=host,
                label=text,
                victims=(Stopped(label=text, why=text),),
                phases={"stop": 0.1},
                result=text,
                decided_by=text,
                work_lost=1.0,
            )
            for host in (text, "b")
        ],
        notes=[text],
    )


def test_what_users_name_their_jobs_stays_text_and_nothing_is_loaded() -> None:
    text = report(facts_with(EVIL), replace(ABOUT, name=EVIL))
    assert EVIL not in text
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 10
    assert not re.search(r"https?:|src=|href=|url\(|@import|<link|\bon\w+=", text)
    assert "default-src 'none'" in text


def test_every_chart_has_words_and_a_table() -> None:
    text = report(facts_with("alice"), ABOUT)
    assert len(re.findall(r'<svg viewBox="[^"]*" role="img" aria-label="[^"]+"', text)) == 7
    for caption in (
        "GPUs in use, per",
        "GPU-hours",
        "Waiting times",
        "Affinity by class",
        "Milliseconds",
        "Preempt",
    ):
        assert f"<caption>{caption}" in text


def test_an_empty_period_says_so() -> None:
    text = report(merged(PERIOD, [Facts(period=PERIOD, gpus=8)]), ABOUT)
    assert "Nothing happened in this period" in text
    assert "<svg" not in text


def test_times_are_ago_or_of_the_calendar() -> None:
    assert when("--since", "7d", 8 * 86400.0) == 86400.0
    assert when("--since", "1970-01-02T00:00:00+00:00", 0.0) == 86400.0
    with pytest.raises(UsageError, match="--until: not a time: 'soon'"):
        when("--until", "soon", 0.0)


def test_the_beginning_of_a_period_is_found_by_halving_also_where_events_are_gone() -> None:
    story = [
        EventView(seq=seq, at=10.0 * seq, name="x", job=None, text="")
        for seq in range(1, 1000)
        if seq not in range(300, 400)
    ]

    def read(since: int, limit: int) -> list[EventView]:
        return [one for one in story if one.seq > since][:limit]

    for at in (0.0, 10.0, 2990.0, 3000.0, 3500.0, 4000.0, 5005.0, 9990.0, 10_000.0):
        low = _before(read, 0, 999, at)
        assert all(one.at >= at for one in story if one.seq > low)
        assert all(one.at < at for one in story if one.seq <= low)


def test_spreads_and_axes() -> None:
    assert spread([]) is None
    found = spread(float(value) for value in range(1, 11))
    assert found is not None
    assert (found.low, found.middle, found.high, found.most) == (1.0, 5.5, 9.0, 10.0)
    assert [scale(most) for most in (0.0, 0.3, 7.0, 32.0)] == [
        (1.0, 1.0),
        (pytest.approx(0.3), 0.1),
        (8.0, 2.0),
        (40.0, 10.0),
    ]
    assert scale(2.0, whole=True) == (2.0, 1.0)

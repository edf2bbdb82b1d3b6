"""Runs of the queue are put off only for submits to a long queue, and only as long as the last run justifies."""

from itertools import count

import pytest

from topod.daemon.pacing import LONG_QUEUE, QUEUE_SHARE, Pacer
from topod.lifecycle import events as ev
from topod.lifecycle.jobtable import JobTable
from topod.lifecycle.states import Job
from topod.model.job import JobId, JobSpec
from topod.model.request import ResourceRequest
from topod.model.rules import NO_RULES


def spec(priority: int = 100) -> JobSpec:
    return JobSpec(name="t", command=("true",), request=ResourceRequest(priority=priority))


def waiting(jobs: int) -> JobTable:
    ids = (JobId(number) for _, number in zip(range(jobs), count(1), strict=False))
    return JobTable({ident: Job(id=ident, spec=spec(), submitted_at=1.0) for ident in ids}, NO_RULES)


SUBMIT = ev.Submitted(spec=spec())
LONG = waiting(LONG_QUEUE)


def test_after_a_long_run_submits_are_put_off_for_a_while() -> None:
    pacer = Pacer()
    assert not pacer.puts_off([SUBMIT], LONG, 10.0)
    pacer.stepped(10.0, 10.02, queued=True)
    assert pacer.due == pytest.approx(10.02 + 0.02 * (1 / QUEUE_SHARE - 1))
    assert pacer.puts_off([SUBMIT, SUBMIT], LONG, 10.05)
    pacer.stepped(10.05, 10.051, queued=False)
    assert pacer.owed
    # A step without the queue moves nothing: the run that is owed comes when it was due.
    assert pacer.due == pytest.approx(10.1)
    assert not pacer.puts_off([SUBMIT], LONG, 10.11)


def test_whatever_else_happens_runs_the_queue() -> None:
    pacer = Pacer()
    pacer.stepped(10.0, 10.5, queued=True)
    assert not pacer.puts_off([SUBMIT, ev.CancelRequested(job=JobId(1))], LONG, 10.6)
    assert not pacer.puts_off([ev.Tick()], LONG, 10.6)
    assert not pacer.puts_off([SUBMIT], waiting(LONG_QUEUE - 1), 10.6), "a short queue is nothing to save"
    assert not pacer.puts_off([SUBMIT], dict(LONG), 10.6)
    pacer.stepped(10.6, 10.601, queued=True)
    assert not pacer.owed


def test_a_job_that_goes_before_all_that_wait_is_never_put_off() -> None:
    pacer = Pacer()
    pacer.stepped(10.0, 10.5, queued=True)
    assert not pacer.puts_off([SUBMIT, ev.Submitted(spec=spec(101))], LONG, 10.6)
    assert pacer.puts_off([SUBMIT, ev.Submitted(spec=spec(99))], LONG, 10.6)

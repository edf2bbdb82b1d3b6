"""Runs of the queue are put off only for submits, and only for as long as the last run justifies."""

import pytest

from topod.daemon.pacing import QUEUE_SHARE, Pacer
from topod.lifecycle import events as ev
from topod.model.job import JobId, JobSpec

SUBMIT = ev.Submitted(spec=JobSpec(name="t", command=("true",)))


def test_after_a_long_run_submits_are_put_off_for_a_while() -> None:
    pacer = Pacer()
    assert not pacer.puts_off([SUBMIT], 10.0)
    pacer.stepped(10.0, 10.02, queued=True)
    assert pacer.due == pytest.approx(10.02 + 0.02 * (1 / QUEUE_SHARE - 1))
    assert pacer.puts_off([SUBMIT, SUBMIT], 10.05)
    pacer.stepped(10.05, 10.051, queued=False)
    assert pacer.owed
    # A step without the queue moves nothing: the run that is owed comes when it was due.
    assert pacer.due == pytest.approx(10.1)
    assert not pacer.puts_off([SUBMIT], 10.11)
    pacer.stepped(10.11, 10.111, queued=True)
    assert not pacer.puts_off([SUBMIT], 10.112), "a short run is nothing to save"


def test_whatever_else_happens_runs_the_queue() -> None:
    pacer = Pacer()
    pacer.stepped(10.0, 10.5, queued=True)
    assert not pacer.puts_off([SUBMIT, ev.CancelRequested(job=JobId(1))], 10.6)
    assert not pacer.puts_off([ev.Tick()], 10.6)
    pacer.stepped(10.6, 10.601, queued=True)
    assert not pacer.owed

"""A pass over the queue answers jobs of one kind once; each would have been told the same."""

from dataclasses import replace
from unittest import mock

import pytest

from tests.fakes.world import World
from tests.property.test_lifecycle import one_day
from topod.lifecycle import events as ev
from topod.lifecycle.jobtable import JobTable, Role
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import Job
from topod.model.job import JobId, JobSpec

_waiting = JobTable.waiting


def _without_kinds(table: JobTable) -> list[tuple[Job, int | None]]:
    return [(job, None) for job, _ in _waiting(table)]


class Doubtful(World):
    """Many jobs that ask alike; every step is taken a second time with each job answered by itself."""

    shared = 0

    def submit(self, spec: JobSpec) -> JobId:
        old = sorted(self.state.jobs)
        if old and self.random.random() < 0.8:
            # The same request, and each of what else may matter from another job.
            parts = [self.job(self.random.choice(old)).spec for _ in range(3)]
            request = parts[0].request
            spec = replace(spec, request=request, labels=parts[1].labels, user=parts[2].user)
            super().submit(replace(spec, user=self.random.choice(["alice", "bob"]), image=None))
        return super().submit(spec)

    def decide(self, event: ev.Event) -> Outcome:
        together = super().decide(event)
        with mock.patch.object(JobTable, "waiting", _without_kinds):
            assert super().decide(event) == together
        return together

    def apply(self, event: ev.Event) -> None:
        super().apply(event)
        kept = JobTable(self.state.jobs, self.rules)
        fresh = JobTable(dict(self.state.jobs), self.rules)
        for role in Role:
            assert kept.having(role) == fresh.having(role)
        known = [kind for _, kind in kept.waiting() if kind is not None]
        type(self).shared += len(known) - len(set(known))


@pytest.mark.parametrize("chunk", range(6))
def test_jobs_of_one_kind_are_told_what_each_would_be_told(chunk: int) -> None:
    Doubtful.shared = 0
    for seed in range(chunk * 8, (chunk + 1) * 8):
        one_day(seed, Doubtful)
    assert Doubtful.shared > 100, "hardly two jobs were alike"

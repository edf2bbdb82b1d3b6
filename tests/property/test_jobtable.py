"""The table of jobs tells the same as a plain look at every job, whatever was changed in whatever order."""

import random
from dataclasses import replace

import pytest

from topod.lifecycle.jobtable import JobTable, active, blocked, turn
from topod.lifecycle.states import Job, JobState, Leftover, with_reason
from topod.model.job import Allocation, JobId, JobSpec
from topod.model.request import ResourceRequest
from topod.model.rules import NO_RULES, Rules


def random_job(rng: random.Random, ident: int) -> Job:
    reserved = rng.random() < 0.1
    return Job(
        id=JobId(ident),
        spec=JobSpec(
            name="t", command=("x",), request=ResourceRequest(gpus=1, priority=rng.choice([1, 2, 2, 3]))
        ),
        submitted_at=rng.choice([1.0, 2.0]),
        state=rng.choice([JobState.PENDING, JobState.PENDING, *JobState]),
        ready_at=rng.choice([None, 1.0, 2.0]),
        preemptions=rng.choice([0, 0, 3, 5]),
        image_ready=rng.random() < 0.8,
        restart_first=rng.random() < 0.2,
        not_before=rng.choice([0.0, 0.0, 5.0]),
        leftovers=(Leftover(attempt=1, handle="h"),) if rng.random() < 0.1 else (),
        pinned=Allocation() if reserved else None,
        pinned_reserved=reserved,
    )


def check(table: JobTable, plain: dict[JobId, Job], rules: Rules) -> None:
    assert table == plain
    pending = [job for job in plain.values() if job.state is JobState.PENDING]
    assert [job for job, _ in table.waiting()] == sorted(pending, key=lambda job: turn(job, rules))
    assert table.active() == active(plain)
    assert list(table.blocked()) == list(blocked(plain))
    # Who is not named active is pending and nothing else.
    rest = [job for job in plain.values() if job not in table.active()]
    assert all(job.state is JobState.PENDING and not job.not_before and not job.leftovers for job in rest)


@pytest.mark.parametrize("seed", range(40))
def test_after_any_changes_the_table_tells_what_a_plain_look_tells(seed: int) -> None:
    rng = random.Random(seed)
    plain = {JobId(ident): random_job(rng, ident) for ident in range(1, 8)}
    table = JobTable(plain, NO_RULES)
    for ident in range(8, 60):
        before, snapshot = table, dict(plain)
        table = JobTable(table, NO_RULES)
        for _ in range(rng.randrange(4)):
            known = rng.choice(sorted(plain))
            what = rng.randrange(4)
            if what == 0 and len(plain) > 1:
                del table[known], plain[known]
            elif what == 1:
                table.retell(with_reason(plain[known], f"reason {ident}"))
                plain[known] = replace(plain[known], reason=f"reason {ident}")
            else:
                job = random_job(rng, known if what == 2 else ident)
                table[job.id] = plain[job.id] = job
        check(table, plain, NO_RULES)
        # The table it was copied from has not changed.
        check(before, snapshot, NO_RULES)


def test_another_rule_makes_another_order() -> None:
    rng = random.Random(1)
    plain = {JobId(ident): random_job(rng, ident) for ident in range(1, 30)}
    other = replace(NO_RULES, preemption_cap=0)
    check(JobTable(JobTable(plain, NO_RULES), other), plain, other)


def test_a_job_with_another_reason_differs_in_nothing_else() -> None:
    job = random_job(random.Random(3), 7)
    assert with_reason(job, "because") == replace(job, reason="because")
    assert job.reason == ""

"""What a key is about to do, in words; and the attempts of a job."""

from dataclasses import replace

import msgspec
import pytest

from tests.unit.topotui.test_timeline import event
from topod.model.job import CheckpointHook, JobSpec, OnPreempt
from topod.protocol.views import JobLine, JobView
from topotui import words
from topotui.attempts import attempts

SPEC = JobSpec(name="train", command=("x",), grace_seconds=20.0)
NEXT = JobLine(
    id=2,
    name="big",
    user="ann",
    state="pending",
    priority=500,
    gpus=4,
    affinity="any",
    policy="guaranteed",
    cpus=0,
    cpu_affinity="numa",
    submitted_at=5.0,
)
ON = {"id": 1, "name": "train", "state": "running", "priority": 100, "gpus": 2, "gpu_indices": [0, 1]}
RUNS = msgspec.convert({**msgspec.to_builtins(NEXT), **ON, "spec": msgspec.to_builtins(SPEC)}, JobView)


def test_a_cancel() -> None:
    assert words.cancel(RUNS, [NEXT]) == (
        "Cancel job 1 (train)?\n\nIt is running on GPUs 0-1.\n"
        "It gets SIGTERM, and SIGKILL 20 s later. It does not run again.\n"
        "First in the queue: job 2 (big), normal, 4 GPUs."
    )
    waits = msgspec.structs.replace(RUNS, state="pending")
    assert words.cancel(waits, []).endswith("It waits. It leaves the queue and does not run.")


def test_what_would_do_nothing_is_refused_in_words() -> None:
    waits, ended = (msgspec.structs.replace(RUNS, state=state) for state in ("pending", "failed"))
    assert words.no_requeue(waits) == "job 1 (train) waits in the queue already"
    assert words.no_requeue(ended) == "job 1 (train) has ended: failed"
    assert words.no_requeue(RUNS) == ""


def test_a_requeue_says_what_is_saved_and_who_is_next() -> None:
    told = words.requeue(RUNS, [])
    assert "what it has not saved by itself is lost" in told
    assert told.endswith("and is not counted as preempted.\nNobody else waits in the queue.")
    hook = CheckpointHook(command=("save",), timeout_seconds=90.0)
    saves = msgspec.structs.replace(
        RUNS, spec=replace(SPEC, checkpoint=hook, on_preempt=OnPreempt.CHECKPOINT)
    )
    told = words.requeue(saves, [NEXT])
    assert "First it runs its checkpoint hook, for at most 1m30s; it is not frozen." in told
    assert "lost" not in told


@pytest.mark.parametrize(
    ("state", "priority", "told"),
    [
        ("pending", 1000, "It waits behind 1, and then behind none of the 1 others."),
        ("pending", 50, "It waits behind 1, and then behind 1 of the 1 others."),
        ("running", 1000, "Only jobs of a higher priority than 1000 may have it stopped"),
    ],
)
def test_a_change_of_priority(state: str, priority: int, told: str) -> None:
    job = msgspec.structs.replace(RUNS, state=state)
    text = words.prioritise(job, priority, [NEXT, job])
    assert told in text
    assert "From low (100) to " in text


def test_a_drain() -> None:
    assert "1 job on it: they go on. 3 jobs in the queue: none starts" in words.drain(1, 3, "fan")


def test_attempts_have_how_they_ended() -> None:
    found = attempts(
        [
            event(1, 1.0, "job.started", 1),
            event(2, 3.0, "job.preempted", 1, "job 1 (a) stopped: preempted by job 2", exit_code=143),
            event(3, 3.0, "job.requeued", 1, "job 1 (a) is back in the queue"),
            event(4, 5.0, "job.started", 1),
            event(5, 9.0, "job.restarting", 1, "job 1 (a): exit code 3; restart 1 of 2", exit_code=3),
            event(6, 20.0, "job.started", 1),
        ]
    )
    assert [(one.how, one.exit_code, one.ended) for one in found] == [
        ("preempted", 143, 3.0), ("failed", 3, 9.0), ("", None, None),
    ]  # fmt: skip
    assert found[1].why == "exit code 3; restart 1 of 2"

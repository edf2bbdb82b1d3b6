"""Described and recorded workloads become jobs."""

from collections import Counter
from io import StringIO
from pathlib import Path
from random import Random

import pytest

from topoctl.simulate.files import read_fleet, read_work
from topoctl.simulate.trace import read_sacct, read_trace, write_trace
from topod.errors import DataError, NotFoundError
from topod.model.request import Affinity, Policy, ResourceRequest
from topod.simulate.generate import Batch, Online, following, generate, replicas

ONE = ResourceRequest(gpus=1, priority=1000)


def batch(**changes: object) -> Batch:
    fields = {
        "name": "b",
        "requests": (ONE,),
        "weights": (1.0,),
        "per_hour": 60.0,
        "median": 600.0,
        "most": 6000.0,
    }
    return Batch(**(fields | changes))  # type: ignore[arg-type]


def test_replicas_follow_what_is_wanted_and_who_came_last_goes_first() -> None:
    jobs = sorted((job.submit, job.ends) for job in following([1, 3, 2, 2], 300.0, 1200.0, "chat", ONE))
    assert jobs == [(0, 1200), (300, 600), (300, 1200)]


def test_a_service_has_the_most_replicas_at_its_busiest_hour() -> None:
    service = Online(name="chat", request=ONE, fewest=2, most=20, peak=21 * 3600.0, jitter=0.0)
    jobs = list(replicas(service, 86400.0, Random(1)))

    def live(hour: float) -> int:
        return sum(job.submit <= hour * 3600 < (job.ends or 0) for job in jobs)

    assert (live(9.1), live(21.1), live(15.1)) == (2, 20, 11)


def test_batch_jobs_come_as_often_and_work_as_long_as_described() -> None:
    jobs = generate(400 * 3600.0, [], [batch()], seed=3)
    times = sorted(job.run for job in jobs)
    assert len(jobs) == pytest.approx(24_000, rel=0.05)
    assert times[len(times) // 2] == pytest.approx(600, rel=0.1)
    assert times[len(times) * 95 // 100] == pytest.approx(6000, rel=0.15)


def test_a_seed_gives_the_same_jobs_and_another_part_beside_it_changes_nothing() -> None:
    alone = generate(36_000.0, [], [batch()], seed=7)
    assert alone == generate(36_000.0, [], [batch()], seed=7)
    assert alone != generate(36_000.0, [], [batch()], seed=8)
    beside = generate(36_000.0, [], [batch(), batch(name="c")], seed=7)
    assert [job.submit for job in beside if job.part == "b"] == [job.submit for job in alone]


def test_a_trace_that_was_written_is_read_as_it_was(tmp_path: Path) -> None:
    jobs = generate(
        7200.0, [Online(name="chat", request=ONE, fewest=1, most=4)], [batch(checkpoint=60.0)], seed=1
    )
    text = StringIO()
    write_trace(text, jobs)
    path = tmp_path / "jobs.csv"
    path.write_text(text.getvalue())
    read = read_trace(path)
    assert [(job.part, job.request, job.preemptible, job.checkpoint) for job in read] == [
        (job.part, job.request, job.preemptible, job.checkpoint) for job in jobs
    ]
    assert [job.submit for job in read] == pytest.approx([job.submit for job in jobs], abs=0.001)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("submit,run\n1,2\n", "has no column gpus; it has submit, run"),
        ("submit,run,gpus,colour\n", "unknown column 'colour'"),
        ("submit,run,gpus\n1,2,x\n", ":2: gpus: not a number: 'x'"),
        ("submit,run,gpus\n1,2,3\n-1,2,3\n", ":3: submit: must be 0 or more: -1"),
        ("submit,run,gpus,affinity\n1,2,3,near\n", ":2: 'near' is not a valid Affinity"),
        ("", "has no column submit, run, gpus; it has none"),
    ],
)
def test_a_damaged_trace_is_refused_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(text)
    with pytest.raises(DataError) as told:
        read_trace(path)
    assert why in told.value.message


def test_what_sacct_printed_becomes_jobs_that_count_from_the_first(tmp_path: Path) -> None:
    path = tmp_path / "sacct.txt"
    path.write_text(
        "Submit|ElapsedRaw|AllocTRES|Partition\n"
        "2026-11-02T10:00:30|600|billing=8,cpu=8,gres/gpu=2,mem=64G,node=1|train\n"
        "2026-11-02T10:00:00|60|cpu=4,gres/gpu:h100=1,gres/gpu=1|dev\n"
        "2026-11-02T10:01:00|60|cpu=4|cpu-only\n"
        "2026-11-02T10:02:00|0||train\n"
    )
    assert [
        (job.submit, job.run, job.request.gpus, job.request.cpus, job.part) for job in read_sacct(path)
    ] == [
        (0, 60, 1, 4, "dev"),
        (30, 600, 2, 8, "train"),
    ]


def test_the_example_files_can_be_read() -> None:
    folder = Path(__file__).resolve().parents[3] / "cli" / "topoctl" / "simulate"
    hosts = read_fleet(folder / "fleet.toml")
    assert Counter(name.split("-")[0] for name, _ in hosts) == {"h100": 4, "rtx": 8}
    work = read_work(folder / "work.toml")
    assert work.seconds == 86400
    assert work.batch[0].requests[2] == ResourceRequest(
        gpus=4, affinity=Affinity.SOCKET, policy=Policy.BEST_EFFORT, cpus="auto", priority=100
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[[batch]]\nname = "b"\ngpus = 1\nper_hour = 1\nrun = [10, 5]\n', "batch 1: run: the median, then"),
        (
            '[[online]]\nname = "b"\ngpus = 1\nreplicas = [5, 2]\n',
            "online 1: replicas: the fewest, then the most",
        ),
        ('[[batch]]\nname = "b"\ngpu = 1\n', "unknown key 'gpu' in [batch]; did you mean 'gpus'?"),
        ('period = "soon"\n', "not a duration: 'soon'"),
        ("period = [\n", "not TOML"),
    ],
)
def test_a_workload_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "work.toml"
    path.write_text(text)
    with pytest.raises(DataError) as told:
        read_work(path)
    assert why in told.value.message


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        read_fleet(tmp_path / "none.toml")

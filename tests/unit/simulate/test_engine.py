"""A small day, moment by moment: who starts when, who is stopped, what is lost, who goes on with what."""

from dataclasses import dataclass, field

from tests.unit.simulate.scenes import HALVES, host, machine
from topod.model.request import Affinity, ResourceRequest
from topod.simulate.engine import Day, Terms
from topod.simulate.jobs import Run, SimJob
from topod.simulate.measures import Measures
from topod.simulate.policies.exact import Exact

LOW, HIGH = 100, 1000


@dataclass(kw_only=True)
class Log(Measures):
    """Measures that also keep when each job began and left."""

    moments: list[tuple[float, int, str]] = field(default_factory=list)

    def placed(self, now, waiting, placement):  # type: ignore[no-untyped-def]
        super().placed(now, waiting, placement)
        self.moments.append((now, waiting.job.ident, "placed"))

    def left(self, now: float, run: Run) -> None:
        super().left(now, run)
        self.moments.append((now, run.job.ident, "left"))


def job(ident: int, submit: float, run: float, gpus: int, priority: int = LOW, **more: object) -> SimJob:
    request = ResourceRequest(
        gpus=gpus, priority=priority, affinity=Affinity.NUMA if gpus <= 4 else Affinity.ANY
    )
    return SimJob(ident=ident, submit=submit, run=run, request=request, **more)  # type: ignore[arg-type]


def live(*jobs: SimJob, until: float = 10_000.0) -> Log:
    """Live through a day of one host of eight GPUs."""
    log = Log(gpus=8, seconds=until)
    day = Day([machine(host(HALVES))], Exact(), Terms(until=until, stop_seconds=10.0), log)
    log.unplaced(day.live(jobs))
    return log


def test_jobs_run_in_the_order_of_the_queue_and_who_finds_no_place_lets_others_pass() -> None:
    log = live(
        job(1, 0, 100, 4), job(2, 1, 100, 4), job(3, 2, 50, 4), job(4, 3, 50, 1, HIGH, preemptible=False)
    )
    # Job 4 has half of the host freed for it: the job that has worked least, for three GPU-seconds more, goes.
    assert [moment for moment in log.moments if moment[1] in (1, 2)][:2] == [
        (0, 1, "placed"),
        (1, 2, "placed"),
    ]
    assert (3, 4, "placed") in log.moments
    (preemption,) = log.preemptions
    assert (preemption.victims, preemption.idled, preemption.lost) == (1, 3, 2 * 4)
    assert preemption.satisfied


def test_a_victim_goes_back_to_its_place_with_what_it_saved() -> None:
    saving = job(1, 0, 100, 4, checkpoint=30.0)
    log = live(saving, job(2, 0.5, 1000, 4, preemptible=False), job(3, 70, 20, 4, HIGH, preemptible=False))
    assert log.preemptions[0].lost == 10 * 4, "two checkpoints were made, ten seconds are lost"
    # Chosen at 70, gone at 80; job 3 works until 100; job 1 has 40 seconds left.
    assert log.moments[2:] == [
        (70, 1, "left"),
        (70, 3, "placed"),
        (100, 3, "left"),
        (100, 1, "placed"),
        (140, 1, "left"),
        (1000.5, 2, "left"),
    ]
    assert log.waits == {LOW: [0, 0], HIGH: [0]}


def test_what_is_being_freed_can_be_promised_and_is_waited_for() -> None:
    log = live(
        job(1, 0, 500, 8),
        job(2, 5, 20, 4, HIGH, preemptible=False),
        job(3, 6, 20, 4, HIGH, preemptible=False),
    )
    assert [at for at, ident, what in log.moments if ident in (2, 3) and what == "left"] == [35, 35]
    assert log.preemptions[0].idled == 4


def test_a_replica_that_is_not_wanted_any_more_is_missed_and_never_runs() -> None:
    holder = job(1, 0, 1000, 8, HIGH, preemptible=False)
    replica = job(2, 10, 40, 4, HIGH, preemptible=False, ends=50.0)
    log = live(holder, replica, job(3, 60, 10, 1, HIGH))
    assert [ident for _, ident, _ in log.moments] == [1, 1, 3, 3]
    assert log.missed_parts == {"batch": 1}
    assert log.waits[HIGH] == [0, 40, 940]


def test_the_day_ends_and_who_waits_is_counted() -> None:
    log = live(job(1, 0, 1000, 8), job(2, 10, 10, 1), until=100.0)
    assert (log.waiting, log.waits[LOW], log.held) == (1, [0, 90], {"batch": 800.0})

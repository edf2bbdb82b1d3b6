"""From looks at the GPUs to what the core is told: marks on change only, and when they go again."""

from dataclasses import dataclass, field, replace

import pytest

from topod.discovery.gpufacts import MIB, GpuLive, GpuProcess, LiveFacts, XidEvent, busy_reasons
from topod.discovery.library import load_library_host
from topod.flextopo.tables import TopologyTables
from topod.health.assessor import Assessor, Look
from topod.health.rules import HealthRules
from topod.health.use import Who
from topod.lifecycle import events as ev
from topod.lifecycle.machine import step
from topod.lifecycle.states import HostState, Job, JobState, Mark, MarkKind, Stage, Stop, StopCause, StopPhase
from topod.model.job import Allocation, JobId, JobSpec

TOPOLOGY = load_library_host("rtx3090x2").topology
FIRST, SECOND = (gpu.uuid for gpu in TOPOLOGY.gpus)
FAST = HealthRules(xid_clear_seconds=60)


@dataclass
class Host:
    """Two GPUs, the real core, and an assessor that looks at them."""

    rules: HealthRules = FAST
    rebooted: bool = False
    state: HostState = field(default_factory=HostState)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.assessor = Assessor(TOPOLOGY, self.rules, rebooted=self.rebooted)
        self.tables = TopologyTables(TOPOLOGY)
        self.told: list[ev.Event] = []
        self.again = False

    def restarted(self, *, rebooted: bool = False) -> "Host":
        return Host(rules=self.rules, rebooted=rebooted, state=self.state, now=self.now)

    def apply(self, event: ev.Event) -> None:
        self.state = step(self.tables, self.state, event, self.now).state

    def look(
        self,
        first: GpuLive | None = None,
        *xids: int,
        users: dict[int, Who] | None = None,
        after: float = 5.0,
    ) -> list[ev.Event]:
        """Look once; the second GPU is always well. Xids are of the first GPU."""
        self.now += after
        live = LiveFacts(gpus=((first or well(FIRST)), well(SECOND)))
        events = tuple(XidEvent(uuid=FIRST, xid=xid) for xid in xids)
        seen = Look(at=self.now, live=live, users={} if users is None else users, xids=events)
        verdict = self.assessor.look(self.state, seen)
        for event in verdict.events:
            self.apply(event)
        self.again = verdict.again
        self.told += verdict.events
        return list(verdict.events)

    def look_blindly(self, first: GpuLive) -> None:
        """Look once where the PIDs that NVML names mean nothing."""
        live = LiveFacts(gpus=(first, well(SECOND)))
        verdict = self.assessor.look(self.state, Look(at=self.now, live=live, users=None))
        for event in verdict.events:
            self.apply(event)
        self.again = verdict.again

    def mark(self, kind: MarkKind = MarkKind.UNHEALTHY) -> Mark | None:
        return next((mark for mark in self.state.marks.get(FIRST, ()) if mark.kind is kind), None)

    def hold(self, state: JobState = JobState.RUNNING, **fields: object) -> JobId:
        job = Job(
            id=JobId(7),
            spec=JobSpec(name="train", command=("x",)),
            state=state,
            submitted_at=0.0,
            allocation=Allocation(gpus=(FIRST,), gpu_indices=(0,)),
            handle="h",
            started_at=1.0,
            **fields,  # type: ignore[arg-type]  # test shorthand
        )
        self.state = replace(self.state, jobs={job.id: job})
        return job.id


def well(uuid: str, **fields: object) -> GpuLive:
    return replace(GpuLive(uuid=uuid, processes=(), memory_used_bytes=4 * MIB), **fields)  # type: ignore[arg-type]  # test shorthand


def with_process(pid: int = 4711, mib: int = 3200) -> GpuLive:
    return well(FIRST, processes=(GpuProcess(pid=pid, memory_bytes=mib * MIB),), memory_used_bytes=mib * MIB)


ALICE = {4711: Who(pid=4711, name="python", user="alice")}


@pytest.mark.parametrize(
    ("reading", "cause", "words"),
    [
        (GpuLive(uuid=FIRST, problem="GPU is lost"), "lost", "GPU is lost"),
        (well(FIRST, mig=True), "mig", "nvidia-smi -mig 0"),
        (well(FIRST, remap_pending=True), "row-remap-pending", "reset the GPU or reboot"),
        (well(FIRST, remap_failed=True), "row-remap-failed", "RMA"),
        (well(FIRST, retired_pending=True), "page-retirement-pending", "reset the GPU or reboot"),
        (well(FIRST, ecc_uncorrected=2), "ecc-2", "2 uncorrectable memory errors"),
        (well(FIRST, recovery="drain-reset"), "recovery-drain-reset", "the driver asks for a reset"),
    ],
)
def test_what_a_reading_shows_is_marked_once_and_cleared_when_it_is_gone(
    reading: GpuLive, cause: str, words: str
) -> None:
    host = Host()
    host.look(reading)
    mark = host.mark()
    assert mark is not None
    assert mark.causes == (cause,)
    assert words in mark.reason
    assert host.look(reading) == []
    assert host.look() == [ev.GpuCleared(uuid=FIRST, kind=MarkKind.UNHEALTHY)]


def test_a_gpu_that_nvml_does_not_list_is_lost() -> None:
    assessor = Assessor(TOPOLOGY, FAST)
    seen = Look(at=1.0, live=LiveFacts(gpus=(well(SECOND),)), users={})
    [event] = assessor.look(HostState(), seen).events
    assert isinstance(event, ev.GpuMarked)
    assert (event.uuid, event.mark.causes) == (FIRST, ("lost",))


@pytest.mark.parametrize(
    "reading",
    [
        well(FIRST, ecc_uncorrected=0),
        well(FIRST, ecc_uncorrected=5, recovery="none"),
        well(FIRST, slowdown="heat", temperature_celsius=95),
        GpuLive(uuid=FIRST),  # it tells nothing at all
    ],
)
def test_what_holds_nothing_back_is_not_marked(reading: GpuLive) -> None:
    assert Host().look(reading) == []


def test_a_site_may_bear_uncorrectable_errors() -> None:
    host = Host(rules=HealthRules(max_uncorrected=3))
    assert host.look(well(FIRST, ecc_uncorrected=3)) == []
    assert len(host.look(well(FIRST, ecc_uncorrected=4))) == 1
    assert Host(rules=HealthRules(max_uncorrected=-1)).look(well(FIRST, ecc_uncorrected=400)) == []


def test_slowdown_is_a_note() -> None:
    hot = well(FIRST, slowdown="heat", temperature_celsius=95)
    seen = Look(at=1.0, live=LiveFacts(gpus=(hot, well(SECOND))), users={})
    assert Assessor(TOPOLOGY, FAST).look(HostState(), seen).notes == {"GPU0": "slowed down by heat (95 °C)"}


def test_an_xid_that_clears_by_itself_goes_after_the_gpu_was_idle_for_a_while() -> None:
    host = Host()
    host.look(None, 79)
    assert host.mark() is not None
    assert host.look(after=30) == []
    assert host.look(with_process(), users={4711: Who(pid=4711, name="nv-hostengine")}, after=20) == []
    assert host.look(after=20) == []  # its idle time begins anew
    assert host.look(after=59) == []
    assert host.look(after=1) == [ev.GpuCleared(uuid=FIRST, kind=MarkKind.UNHEALTHY)]


def test_a_held_gpu_is_not_idle() -> None:
    host = Host()
    host.look(None, 79)
    host.hold()
    assert host.look(after=600) == []


def test_a_lost_gpu_with_its_xid_comes_back_in_two_steps() -> None:
    host = Host()
    host.look(GpuLive(uuid=FIRST, problem="GPU is lost"), 79)
    mark = host.mark()
    assert mark is not None
    assert mark.causes == ("lost", "xid-79")
    host.look()
    mark = host.mark()
    assert mark is not None
    assert mark.causes == ("xid-79",)
    host.look(after=61)
    assert host.mark() is None


def test_an_xid_that_needs_a_reset_waits_for_a_reboot_or_the_drivers_word_or_an_administrator() -> None:
    for way in ("reboot", "driver", "resume"):
        host = Host()
        host.look(None, 48)
        assert host.look(after=86400) == [], way
        if way == "reboot":
            host = host.restarted(rebooted=True)
            host.look()
        elif way == "driver":
            host.look(well(FIRST, recovery="none"), after=60)
        else:
            host.apply(ev.GpuResumed(uuid=FIRST))
            host.look()
        assert host.mark() is None, way


def test_a_card_that_must_be_replaced_stays_marked_over_a_reboot() -> None:
    host = Host()
    host.look(None, 64)
    host = host.restarted(rebooted=True)
    host.look(well(FIRST, recovery="none"), after=86400)
    assert host.mark() is not None


def test_nothing_is_forgotten_by_a_restart_of_topod() -> None:
    host = Host()
    host.look(None, 48)
    host = host.restarted()
    assert host.look() == []
    mark = host.mark()
    assert mark is not None
    assert mark.causes == ("xid-48",)


def test_xids_of_programs_are_told_in_the_jobs_story_and_hold_nothing_back() -> None:
    host = Host()
    job = host.hold()
    [event] = host.look(None, 31)
    assert event == ev.GpuNoted(
        uuid=FIRST, text="GPU0 had Xid 31 (GPU memory page fault: a program's fault)", job=job
    )
    assert host.look(None, 31) == []  # not each of a thousand
    assert len(host.look(None, 31, after=60)) == 1


def test_the_site_says_which_xids_count() -> None:
    rules = HealthRules(critical_xids=frozenset({31, 48}), ignore_xids=frozenset({48, 13}))
    host = Host(rules=rules)
    host.look(None, 48, 13)
    assert host.told == []
    host.look(None, 31)
    mark = host.mark()
    assert mark is not None
    assert mark.causes == ("xid-31",)


def test_what_an_administrator_set_aside_stays_so_until_it_is_gone_or_something_new_comes() -> None:
    pending = well(FIRST, remap_pending=True)
    host = Host()
    host.look(pending)
    host.apply(ev.GpuResumed(uuid=FIRST))
    assert host.look(pending) == []
    assert host.restarted().look(pending) == []
    host.look(pending, 48)
    mark = host.mark()
    assert mark is not None
    assert (mark.blocks, mark.causes) == (True, ("row-remap-pending", "xid-48"))
    host.apply(ev.GpuResumed(uuid=FIRST))
    host.look()
    assert host.mark() is None
    host.look(pending)
    mark = host.mark()
    assert mark is not None
    assert mark.blocks


def test_where_the_site_wants_it_the_job_is_requeued_at_the_first_mark_only() -> None:
    host = Host(rules=HealthRules(requeue=True))
    [first] = host.look(None, 48)
    [second] = host.look(None, 95)
    assert isinstance(first, ev.GpuMarked)
    assert isinstance(second, ev.GpuMarked)
    assert (first.requeue, second.requeue) == (True, False)


def test_a_mark_of_somebody_else_is_left_alone() -> None:
    host = Host()
    own = Mark(kind=MarkKind.UNHEALTHY, reason="coil whine", since=1.0)
    host.apply(ev.GpuMarked(uuid=FIRST, mark=own))
    host.look(well(FIRST, remap_pending=True))
    host.look()
    assert host.mark() == own


def test_a_mark_says_what_is_seen_now_and_the_story_tells_it_once() -> None:
    host = Host()
    host.look(GpuLive(uuid=FIRST, problem="GPU is lost"))
    [event] = host.look(GpuLive(uuid=FIRST, problem="GPU needs a reset"))
    mark = host.mark()
    assert mark is not None
    assert mark.reason.startswith("GPU needs a reset")
    assert mark.since == 1005.0, "it is still the same mark"
    assert step(host.tables, host.state, event, host.now).notices == ()
    for users in (ALICE, ALICE, {4711: replace(ALICE[4711], name="train")}):
        host.look(with_process(), users=users)
    foreign = host.mark(MarkKind.FOREIGN)
    assert foreign is not None
    assert foreign.reason == "pid 4711 (train, alice) holds 3.1 GiB"


# --- use --------------------------------------------------------------------------------------------------


def test_foreign_use_counts_when_it_is_seen_twice_and_goes_when_it_is_gone() -> None:
    host = Host()
    assert host.look(with_process(), users=ALICE) == []
    assert host.again
    host.look(with_process(), users=ALICE)
    mark = host.mark(MarkKind.FOREIGN)
    assert mark is not None
    assert mark.reason == "pid 4711 (python, alice) holds 3.1 GiB"
    assert host.look(with_process(mib=9000), users=ALICE) == []  # more memory is no news
    host.look(with_process(mib=9000), users=ALICE, after=60)
    after = host.mark(MarkKind.FOREIGN)
    assert after == replace(mark, reason="pid 4711 (python, alice) holds 8.8 GiB"), "in time it is told"
    host.look()
    assert host.mark(MarkKind.FOREIGN) is None


def test_the_processes_of_the_job_that_holds_the_gpu_are_not_foreign() -> None:
    host = Host()
    job = host.hold()
    own = {4711: replace(ALICE[4711], job=job)}
    for _ in range(3):
        assert host.look(with_process(), users=own) == []


def test_foreign_use_of_a_held_gpu_is_marked_beside_the_job() -> None:
    host = Host()
    host.hold()
    host.look(with_process(), users=ALICE)
    host.look(with_process(), users=ALICE)
    assert host.mark(MarkKind.FOREIGN) is not None
    assert host.state.jobs[JobId(7)].state is JobState.RUNNING


def test_a_job_on_a_gpu_that_it_does_not_hold_is_named() -> None:
    host = Host()
    users = {4711: replace(ALICE[4711], job=JobId(9))}
    host.look(with_process(), users=users)
    host.look(with_process(), users=users)
    mark = host.mark(MarkKind.FOREIGN)
    assert mark is not None
    assert "of job 9, which does not hold this GPU" in mark.reason


def test_nothing_is_said_of_processes_while_the_runtime_cannot_say_whose_they_are() -> None:
    host = Host()
    live = LiveFacts(gpus=(with_process(), well(SECOND)))
    for _ in range(3):
        assert host.assessor.look(host.state, Look(at=1.0, live=live, users=None)).events == ()


def test_a_quarantine_ends_also_where_nobody_knows_whose_processes_there_are() -> None:
    host = Host()
    busy = Mark(kind=MarkKind.QUARANTINED, reason="pid 4711 holds 3.1 GiB", since=1.0)
    host.apply(ev.GpuMarked(uuid=FIRST, mark=busy))
    for reading, events in ((with_process(), ()), (well(FIRST), (MarkKind.QUARANTINED,))):
        live = LiveFacts(gpus=(reading, well(SECOND)))
        verdict = host.assessor.look(host.state, Look(at=1.0, live=live, users=None))
        assert tuple(event.kind for event in verdict.events if isinstance(event, ev.GpuCleared)) == events


@pytest.mark.parametrize("name", ["nv-hostengine", "nvidia-cuda-mps-server"])
def test_processes_that_the_site_ignores_are_not_foreign(name: str) -> None:
    host = Host()
    for _ in range(3):
        assert host.look(with_process(mib=100), users={4711: Who(pid=4711, name=name)}) == []


def test_what_a_dead_job_left_is_quarantined_and_released() -> None:
    host = Host()
    left = {4711: Who(pid=4711, name="VLLM::Worker", user="alice", left_by=12)}
    host.look(with_process(mib=22630), users=left)
    host.look(with_process(mib=22630), users=left)
    mark = host.mark(MarkKind.QUARANTINED)
    assert mark is not None
    assert mark.reason == "pid 4711 (VLLM::Worker, alice, left by job 12) holds 22.1 GiB"
    host.look()
    assert host.state.marks == {}


def test_memory_that_no_process_holds_is_quarantined() -> None:
    host = Host()
    full = well(FIRST, memory_used_bytes=22000 * MIB, idle_bytes=4 * MIB)
    host.look(full)
    host.look(full)
    mark = host.mark(MarkKind.QUARANTINED)
    assert mark is not None
    assert mark.reason == "21.5 GiB in use by no process that can be seen"


@pytest.mark.parametrize(
    ("mib", "idle_mib", "marked"),
    [(2048, 4, True), (261, 4, True), (260, 4, False), (1025, None, True), (1024, None, False)],
)
@pytest.mark.parametrize("desktop", [(), (GpuProcess(pid=9, kind="graphics", memory_bytes=2 * MIB),)])
def test_memory_of_nobody_counts_from_where_the_check_before_a_start_counts_it(
    mib: int, idle_mib: int | None, desktop: tuple[GpuProcess, ...], *, marked: bool
) -> None:
    idle = None if idle_mib is None else idle_mib * MIB
    reading = well(FIRST, memory_used_bytes=mib * MIB, idle_bytes=idle, processes=desktop)
    host = Host()
    for _ in range(3):
        host.look(reading)
    assert (host.mark(MarkKind.QUARANTINED) is not None) is marked
    assert bool(busy_reasons(LiveFacts(gpus=(reading,)), (FIRST,))) is marked
    host.look(replace(reading, memory_used_bytes=4 * MIB))
    assert host.state.marks == {}


def test_memory_of_nobody_is_seen_also_where_nobody_knows_whose_processes_there_are() -> None:
    host = Host()
    full = well(FIRST, memory_used_bytes=2048 * MIB)
    host.look_blindly(full)
    assert (host.state.marks, host.again) == ({}, True)
    host.look_blindly(full)
    mark = host.mark(MarkKind.QUARANTINED)
    assert mark is not None
    assert mark.reason == "2.0 GiB in use by no process that can be seen"
    host.look_blindly(well(FIRST))
    assert host.state.marks == {}
    host.hold()
    for _ in range(3):
        host.look_blindly(full)
    assert host.state.marks == {}, "a job holds it"


def test_a_quarantine_is_looked_at_again_its_process_named_and_released_when_clear() -> None:
    host = Host()
    busy = Mark(kind=MarkKind.QUARANTINED, reason="pid 4711 holds 3.1 GiB", since=1.0)
    host.apply(ev.GpuMarked(uuid=FIRST, mark=busy))
    host.look(with_process(), users=ALICE)
    mark = host.mark(MarkKind.QUARANTINED)
    assert mark is not None
    assert mark.reason.startswith("pid 4711 (python, alice) holds 3.1 GiB")
    host.look(with_process(), users=ALICE)  # now it is sure that it is foreign, and said once
    assert host.mark(MarkKind.QUARANTINED) is None
    assert host.mark(MarkKind.FOREIGN) is not None
    host.look()
    assert host.state.marks == {}


def test_the_quarantine_of_a_job_that_survives_sigkill_stays() -> None:
    host = Host()
    stop = Stop(cause=StopCause.CANCEL, by=None, reason="", since=0.0, phase=StopPhase.STUCK, deadline=None)
    job = host.hold(JobState.STOPPING, stop=stop)
    mark = Mark(kind=MarkKind.QUARANTINED, reason="survives SIGKILL", since=1.0, job=job)
    host.state = replace(host.state, marks={FIRST: (mark,)})
    host.look(after=600)
    assert host.mark(MarkKind.QUARANTINED) == mark


def test_a_gpu_that_a_starting_job_waits_for_is_left_to_its_own_check() -> None:
    host = Host()
    host.hold(JobState.STARTING, stage=Stage.CHECKING)
    for _ in range(3):
        assert host.look(with_process(), users=ALICE) == []


def test_foreign_use_of_gpus_can_be_switched_off() -> None:
    host = Host(rules=HealthRules(foreign_gpus=False))
    for _ in range(3):
        assert host.look(with_process(), users=ALICE) == []

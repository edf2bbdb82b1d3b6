"""What the witness tells of steps: each decision once, each preemption with its phases when it is over."""

import asyncio
from dataclasses import replace

from topod.daemon.witness import Stepped, Witness
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import HostState, Job, JobState, Stage
from topod.model.job import JobId, JobSpec
from topod.model.request import ResourceRequest
from topod.shell.telling import Decision, Phase, Preempted, Verdict

SPEC = JobSpec(name="j", command=("true",), request=ResourceRequest(gpus=2))
PLAN = {"victims": [7, 8], "gpus": [0, 1], "satisfied": True, "cost": {"affinity_steps": 0}}
WAITS = Job(id=JobId(1), spec=SPEC, submitted_at=0.0, ready_at=1.0, reason="2 GPUs: none is free")
PLACED = replace(
    WAITS,
    state=JobState.STARTING,
    stage=Stage.CREATING,
    attempt=1,
    victims=(JobId(7), JobId(8)),
    plan=PLAN,
    reason="its container is being made",
)


class Counted:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.over: list[Preempted] = []

    def decided(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def preempted(self, done: Preempted) -> None:
        self.over.append(done)

    def changed(self, before: Job | None, job: Job) -> None: ...

    def noticed(self, outcome: Outcome) -> None: ...


class Story:
    """A job that goes from one state to the next, a second for each."""

    def __init__(self, witness: Witness, first: Job | None = None) -> None:
        self.witness, self.counted = witness, Counted()
        witness.counting = self.counted
        self.now, self.job = 0.0, first

    def goes_on(self, job: Job) -> None:
        before = HostState(jobs={} if self.job is None else {self.job.id: self.job})
        outcome = Outcome(state=HostState(generation=9, jobs={job.id: job}), changed=(job,))
        step = Stepped(before=before, outcome=outcome, at=self.now, seconds=0.25)
        asyncio.run(self.witness.saw(step))
        self.job, self.now = job, self.now + 1.0


def test_a_job_that_waits_is_told_of_once() -> None:
    story = Story(Witness(HostState()))
    story.goes_on(replace(WAITS, ready_at=None))
    assert story.counted.decisions == []
    story.goes_on(WAITS)
    story.goes_on(replace(WAITS, reason="another one"))
    (told,) = story.counted.decisions
    assert (told.verdict, told.reason, told.seconds) == (Verdict.WAITING, WAITS.reason, 0.25)


def test_a_preemption_is_told_with_what_each_phase_took() -> None:
    story = Story(Witness(HostState()), WAITS)
    story.goes_on(PLACED)
    assert story.witness.open == 1
    story.goes_on(replace(PLACED, stage=Stage.CLEARING))
    story.goes_on(replace(PLACED, stage=Stage.CLEARING, reason="still"))
    story.goes_on(replace(PLACED, stage=Stage.LAUNCHING))
    story.goes_on(replace(PLACED, state=JobState.RUNNING, stage=None))
    (decision,) = story.counted.decisions
    assert (decision.verdict, decision.victims) == (Verdict.PREEMPTING, (7, 8))
    (done,) = story.counted.over
    assert done.completed
    assert done.phases == {
        Phase.DECIDE: 0.25,
        Phase.CREATE: 1.25,
        Phase.STOP: 2.0,
        Phase.FREE: 0.0,
        Phase.START: 1.0,
    }
    assert done.total == 4.25
    assert story.witness.open == 0


def test_one_that_is_planned_anew_or_gives_up_is_over() -> None:
    story = Story(Witness(HostState()), WAITS)
    story.goes_on(PLACED)
    story.goes_on(replace(PLACED, attempt=2))
    story.goes_on(replace(WAITS, reason="the host changed"))
    assert [(done.completed, done.reason) for done in story.counted.over] == [
        (False, "planned anew"),
        (False, "the host changed"),
    ]
    assert [one.verdict for one in story.counted.decisions[:2]] == [Verdict.PREEMPTING, Verdict.PREEMPTING]


def test_of_one_that_began_in_an_earlier_life_only_what_was_seen_is_told() -> None:
    clearing = replace(PLACED, stage=Stage.CLEARING)
    story = Story(Witness(HostState(jobs={clearing.id: clearing})), clearing)
    story.goes_on(replace(PLACED, stage=Stage.LAUNCHING))
    story.goes_on(replace(PLACED, state=JobState.RUNNING, stage=None))
    (done,) = story.counted.over
    assert (done.total, done.phases) == (None, {Phase.FREE: 0.0, Phase.START: 1.0})

"""Who is placed next, and on which host: the order of the queue over the whole fleet.

The same order as on a host: effective priority, submit time, id. What a decision gives away is held on its
host at once (`promised`), so the next one never gives it away again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil

from topod.fleet.awaited import Awaited, awaited_text
from topod.fleet.board import Board, Kept, ask_all, shortage
from topod.fleet.depending import held_back
from topod.fleet.draft import Draft
from topod.fleet.jobtable import effective_priority, turn
from topod.fleet.never import too_few_hosts
from topod.fleet.picking import Choice
from topod.fleet.rendezvous import address_of, free_port
from topod.fleet.states import FleetJob, FleetJobId, FleetJobState, Guard, Member
from topod.fleet.targets import Keeping, gpus_asked, keeping, longest, may_evict_at
from topod.model.assignment import Place
from topod.model.budgets import budget_names
from topod.model.cpuset import CpuSet
from topod.model.quotas import Ledger
from topod.model.request import ResourceRequest
from topod.preemption.refusal import refuse_by_quota


@dataclass(frozen=True, slots=True)
class _Kind:
    """All that a pass over the queue looks at in a job: those of one kind are answered alike."""

    request: ResourceRequest
    select: tuple[str, ...]
    gpu_model: str
    hosts: int
    may_evict: bool
    kept: frozenset[Kept]
    without: frozenset[str]


@dataclass(slots=True)
class _Pass:
    """What one pass over the queue remembers."""

    usage: Ledger
    awaited: Awaited
    refused_by: Mapping[FleetJobId, frozenset[str]]
    """The hosts that are not asked for a job just now."""
    longest: Keeping | None = None
    first: Keeping | None = None
    blocked: bool = False
    """Whether a job that must wait for room was met."""
    refused: dict[_Kind, str] = field(default_factory=dict)
    """Answers so far. What is placed takes room and makes none, so they hold to the end of the pass."""
    told: dict[int, str] = field(default_factory=dict)
    """What each kind of jobs waits for (`FleetJobs.kind`), since what is kept from them changed."""


def run_queue(draft: Draft) -> None:
    """Place every pending job that can be placed now, and give every other one its reason.

    The whole queue is gone through only when room may have come free; else only the jobs that are new in it.
    """
    if draft.behind:
        waiting: Iterable[FleetJob] = draft.jobs.queue()
        now = _begin(draft)
        draft.first = None
    else:
        fresh = (job for ident in draft.fresh if (job := draft.get(ident)) is not None)
        pending = [job for job in fresh if job.state is FleetJobState.PENDING]
        waiting = sorted(pending, key=lambda job: turn(job, draft.rules))
        if not pending:
            return
        now = _begin(draft)
    # Who is placed or blocked is no longer new; a job that is put anew below is only told something.
    draft.behind = False
    for waits in waiting:
        job = draft.jobs[waits.id]  # a target may have been chosen for it meanwhile
        _meet_first(draft, job, now)
        kind, blocked = draft.jobs.kind(job.id), now.blocked
        if kind is not None and (told := now.told.get(kind)) is not None:
            draft.retell(job, told)
            continue
        wait = _try(draft, job, now)
        if kind is not None and wait is not None and blocked:
            now.told[kind] = wait
        if wait is not None and (left := draft.get(job.id)) is not None:
            draft.retell(left, wait)
    draft.show().keep(frozenset(), draft.view())


def _begin(draft: Draft) -> _Pass:
    usage = _usage(draft)
    return _Pass(usage, Awaited(draft), refused_by=_refused_by(draft), longest=longest(draft, usage))


def _usage(draft: Draft) -> Ledger:
    """Return what is held against quotas: by all that was given to hosts and is not over there."""
    usage = Ledger(draft.rules)
    for job in draft.jobs.values() if draft.rules.quotas else ():
        held = sum(not member.over for member in job.members)
        if held:
            usage.add(job.spec, held * job.spec.request.gpus)
    return usage


def _meet_first(draft: Draft, job: FleetJob, now: _Pass) -> None:
    """Keep the target of the first job that waits, which an earlier pass found, from those behind it."""
    first = None if draft.first is None or now.blocked else draft.get(draft.first)
    if first is None or first.state is not FleetJobState.PENDING or first.id == job.id:
        return
    if held_back(draft, first) is not None:
        return
    if turn(first, draft.rules) < turn(job, draft.rules):
        now.blocked = True
        now.first = keeping(draft, first, other=now.longest)


def _try(draft: Draft, job: FleetJob, now: _Pass) -> str | None:
    """Place a job, or say what it waits for; None: it was placed."""
    if job.not_before > draft.now:
        return job.reason
    if (wait := held_back(draft, job)) is not None:
        if job.ready_at is not None:  # whatever it has waited for room does not count
            draft.put(replace(job, ready_at=None, target=()))
        return wait
    asked = gpus_asked(job)
    room = now.usage.room(job.spec)
    if room is not None and asked > room.gpus:
        return refuse_by_quota(room, replace(job.spec.request, gpus=asked)).reason
    if job.ready_at is None:
        job = draft.put(replace(job, ready_at=draft.now, not_before=0.0))
    missed = now.awaited.for_(job.request)
    until = max(may_evict_at(job), now.awaited.until if missed else 0.0)
    left = until - draft.now
    kind = _Kind(
        request=job.spec.request,
        select=job.request.select,
        gpu_model=job.request.gpu_model,
        hosts=job.request.hosts,
        may_evict=left <= 0,
        kept=_kept_from(draft, job, now),
        without=now.refused_by.get(job.id, frozenset()),
    )
    reason = now.refused.get(kind)
    if reason is None:
        answer = _decide(draft, job, kind)
        if not isinstance(answer, str):
            served = now.longest is not None and now.longest.job.id == job.id
            _place(draft, job, answer, _guard(draft, job) if served else None)
            now.usage.add(job.spec, asked)
            return None
        reason = now.refused[kind] = answer
    if not now.blocked:
        now.blocked = True
        now.first = keeping(draft, job, other=now.longest)
        draft.first = job.id
    if left <= 0:
        return reason
    only = f"for {ceil(left)} s more only free GPUs will do"
    return f"{reason} ({only}{f': {awaited_text(missed)}' if missed else ''})"


def _refused_by(draft: Draft) -> Mapping[FleetJobId, frozenset[str]]:
    found: dict[FleetJobId, frozenset[str]] = {}
    for (ident, host), refused in draft.refused.items():
        if refused.until > draft.now:
            found[ident] = found.get(ident, frozenset()) | {host}
    return found


def _kept_from(draft: Draft, job: FleetJob, now: _Pass) -> frozenset[Kept]:
    """Return what a job must leave alone."""
    return frozenset(
        kept
        for keeping in (now.longest, now.first)
        if keeping is not None and keeping.binds(job, draft.now, draft.rules)
        for kept in keeping.kept
    )


def _decide(draft: Draft, job: FleetJob, kind: _Kind) -> list[Choice] | str:
    """Return the hosts of least cost for all members of a job, or why there are not enough.

    Costs add up, and are compared from the left: so the best hosts one by one are the best together, unless
    jobs over several hosts are to be stopped, which are paid for once.
    """
    board = draft.show()
    board.keep(kind.kept, draft.view())
    chosen, refusal = ask_all(board, job, draft.now, may_evict=kind.may_evict, exclude=kind.without)
    if refusal is None:
        return chosen
    few = too_few_hosts(job.request, draft.records)
    return _explained(draft, kind, few or shortage(chosen, kind.hosts, refusal))


def _explained(draft: Draft, kind: _Kind, reason: str) -> str:
    if not draft.records:
        return "no host has joined the fleet"
    if not draft.board.known():
        unfit = next(iter(sorted(draft.board.unfit.items())), None)
        return "no host can be reached now" if unfit is None else f"{unfit[0]}: {unfit[1]}"
    if kind.without:
        return f"{reason} ({', '.join(sorted(kind.without))} gave it back and will be asked again)"
    return reason


def _guard(draft: Draft, job: FleetJob) -> Guard:
    """Return what protects a job from those who were kept waiting for it: it may run as long as it waited."""
    priority = max(effective_priority(job, draft.rules), draft.rules.hold_below - 1)
    return Guard(priority=priority, seconds=draft.rules.hold_after_seconds)


def _place(draft: Draft, job: FleetJob, choices: list[Choice], guard: Guard | None) -> None:
    """Give a job to its hosts; they learn it from `orders_for` once this is durable."""
    members = tuple(
        Member(
            host=choice.host,
            address=address_of(draft, choice.host),
            rank=rank,
            place=Place(gpus=choice.plan.gpus, victims=choice.plan.victims),
            cpus=choice.plan.cpus,
            since=draft.now,
        )
        for rank, choice in enumerate(choices)
    )
    names = ", ".join(member.host for member in members)
    called = [_called(draft.board, member) for member in members]
    story = _story(members, called)
    draft.put(
        replace(
            job,
            state=FleetJobState.ASSIGNED,
            reason=f"assigned to {names}",
            fence=draft.next_fence,
            members=members,
            go=False,
            reprioritised=False,
            target=(),
            guard=guard,
            port=free_port(draft, members[0].host, draft.next_fence) if len(members) > 1 else 0,
            ready_at=None,
            not_before=0.0,
            budgets=budget_names(job.spec, draft.rules),
            placed_at=draft.now,
            exit_code=None,
        )
    )
    draft.next_fence += 1
    victims = [name for names in called for name in names]
    draft.note("job.assigned", f"{job.label}: {story}", job=job, fence=draft.next_fence - 1, victims=victims)


def _called(board: Board, member: Member) -> list[str]:
    """Return how people name those whom an assignment stops, after the word job."""
    return [board.called(member.host, job) for job in member.place.victims]


def _story(members: tuple[Member, ...], called: list[list[str]]) -> str:
    parts = []
    for member, names in zip(members, called, strict=True):
        gpus = str(CpuSet.of(member.place.gpus))
        victims = [f"job {name}" for name in names]
        stops = f", stops {', '.join(victims)}" if victims else ""
        word = "GPU" if len(member.place.gpus) == 1 else "GPUs"
        parts.append(f"{word} {gpus} of {member.host}{stops}" if gpus else f"{member.host}{stops}")
    return "; ".join(parts)

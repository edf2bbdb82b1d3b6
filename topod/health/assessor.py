"""From one look at the GPUs to the events that the core is told: what changed since it was last told.

The marks of the host's state are the memory: an Xid that was seen stands in the mark it led to, so nothing is
forgotten when topod is started anew. Kept here is only what may be lost: since when a GPU has been idle.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from topod.discovery.gpufacts import GpuLive, LiveFacts, XidEvent, busy_reasons
from topod.health.findings import Finding, findings, slowed
from topod.health.rules import HealthRules
from topod.health.use import Use, Who, stray_memory, unasked_use
from topod.health.xids import Clears, advised, clears, described
from topod.lifecycle import events as ev
from topod.lifecycle.devices import XID_CAUSE
from topod.lifecycle.states import HOLDING, HostState, Job, JobState, Mark, MarkKind, StopPhase
from topod.model.job import JobId
from topod.model.topology import Topology

TOLD_AGAIN_SECONDS: Final = 60.0
"""An Xid that holds nothing back is told at most so often for one GPU; a mark follows a size as often."""
_SIZES: Final = re.compile(r"[0-9.]+ [MG]iB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen at the moment `at` (epoch seconds)."""

    at: float
    live: LiveFacts
    users: Mapping[int, Who] | None
    """The processes on GPUs, by PID; None where it is not known which of them are of jobs."""
    xids: Sequence[XidEvent] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from a look: events for the core, and what people should know though nothing follows."""

    events: tuple[ev.Event, ...] = ()
    notes: Mapping[str, str] | None = None
    """By GPU name: `GPU3` is slowed down by heat."""
    again: bool = False
    """Something was seen that counts only if the next look, taken soon, shows it too."""


class Assessor:
    """Judges one look after the other. `rebooted`: the machine was, since the marks were made."""

    def __init__(self, topology: Topology, rules: HealthRules, *, rebooted: bool = False) -> None:
        self._topology = topology
        self._rules = rules
        self._rebooted = rebooted
        self._idle_since: dict[str, float] = {}
        self._suspects: dict[str, frozenset[str]] = {}
        self._told: dict[tuple[str, int], float] = {}
        self._sized: dict[tuple[str, MarkKind], float] = {}

    def look(self, state: HostState, seen: Look) -> Verdict:
        """Return what the core must be told, given that it is in `state`."""
        events: list[ev.Event] = list(self._xid_notes(state, seen))
        notes: dict[str, str] = {}
        again = False
        for gpu in self._topology.gpus:
            live = seen.live.of(gpu.uuid)
            holders = _holders(state, gpu.uuid)
            self._note_idleness(gpu.uuid, live, busy=bool(holders), at=seen.at)
            events += self._health(state, gpu.uuid, live, seen)
            if live is None or live.problem is not None:
                pass
            else:
                use = self._unclear_use if seen.users is None else self._use
                told, suspected = use(state, gpu.uuid, live, holders, seen)
                events += told
                again = again or suspected
            slow = slowed(live)
            if slow is not None:
                notes[f"GPU{gpu.index}"] = slow
        self._rebooted = False
        return Verdict(events=tuple(events), notes=notes, again=again)

    # --- health -------------------------------------------------------------------------------------------

    def _health(self, state: HostState, uuid: str, live: GpuLive | None, seen: Look) -> Iterator[ev.Event]:
        before = _mark(state, uuid, MarkKind.UNHEALTHY)
        if before is not None and not before.causes:
            return  # not ours
        now = list(findings(live, self._rules))
        now += [Finding(f"{XID_CAUSE}{xid}", advised(xid)) for xid in self._xids(before, uuid, seen)]
        causes = tuple(finding.code for finding in now)
        known = set(before.causes) if before is not None else set()
        if before is not None and before.accepted and set(causes) <= known and causes:
            return
        reason = "; ".join(finding.text for finding in now)
        if causes == (before.causes if before is not None else ()):
            if before is not None and before.reason != reason:
                yield ev.GpuMarked(uuid=uuid, mark=replace(before, reason=reason))
            return
        if not causes:
            yield ev.GpuCleared(uuid=uuid, kind=MarkKind.UNHEALTHY)
            return
        mark = Mark(kind=MarkKind.UNHEALTHY, reason=reason, since=seen.at, causes=causes)
        fresh = before is None or before.accepted
        yield ev.GpuMarked(uuid=uuid, mark=mark, requeue=self._rules.requeue and fresh)

    def _xids(self, before: Mark | None, uuid: str, seen: Look) -> list[int]:
        """Return the critical Xids that still count against the GPU, the old ones first."""
        old = [] if before is None or before.accepted else list(_xids_of(before.causes))
        kept = [xid for xid in old if not self._is_over(xid, before, uuid, seen)]
        new = [event.xid for event in seen.xids if event.uuid == uuid and self._rules.is_critical(event.xid)]
        return list(dict.fromkeys([*kept, *new]))

    def _is_over(self, xid: int, before: Mark | None, uuid: str, seen: Look) -> bool:
        if not self._rules.is_critical(xid):
            return True  # the site has changed its mind
        when = clears(xid)
        if when is Clears.NEVER or before is None:
            return False
        if self._rebooted:
            return True
        idle_since = self._idle_since.get(uuid)
        if idle_since is None or self._rules.xid_clear_seconds <= 0:
            return False
        live = seen.live.of(uuid)
        # A driver that says by itself what a GPU needs knows when a reset has been made.
        can = when is Clears.IDLE or (live is not None and live.recovery == "none")
        return can and seen.at - max(idle_since, before.since) >= self._rules.xid_clear_seconds

    def _note_idleness(self, uuid: str, live: GpuLive | None, *, busy: bool, at: float) -> None:
        quiet = live is not None and live.problem is None and not busy
        if quiet and live is not None and not any(p.kind == "compute" for p in live.processes or ()):
            self._idle_since.setdefault(uuid, at)
        else:
            self._idle_since.pop(uuid, None)

    def _xid_notes(self, state: HostState, seen: Look) -> Iterator[ev.Event]:
        """Tell of the Xids that hold nothing back, in the story of the job that the GPU belongs to."""
        names = {gpu.uuid: f"GPU{gpu.index}" for gpu in self._topology.gpus}
        for event in seen.xids:
            if event.xid in self._rules.ignore_xids:
                continue
            if event.uuid in names and self._rules.is_critical(event.xid):
                continue
            key = (event.uuid or "", event.xid)
            if seen.at - self._told.get(key, 0.0) < TOLD_AGAIN_SECONDS:
                continue
            self._told[key] = seen.at
            name = names.get(event.uuid or "", event.uuid or "a GPU that could not be named")
            job = next(iter(_holders(state, event.uuid or "")), None)
            yield ev.GpuNoted(text=f"{name} had {described(event.xid)}", uuid=event.uuid or "", job=job)

    # --- use ----------------------------------------------------------------------------------------------

    def _use(
        self, state: HostState, uuid: str, live: GpuLive, holders: Sequence[JobId], seen: Look
    ) -> tuple[list[ev.Event], bool]:
        users = seen.users or {}
        if _being_cleared(state, uuid):
            # The one who waits for this GPU looks at it closely himself.
            return [], False
        use = unasked_use(live, users, holders, self._rules)
        if not self._rules.foreign_gpus:
            use = Use(left=use.left)
        # What ends with its container needs a moment: only what is seen twice counts.
        codes = frozenset(finding.code for finding in (*use.foreign, *use.left))
        before, self._suspects[uuid] = self._suspects.get(uuid, frozenset()), codes
        known = {cause for mark in state.marks.get(uuid, ()) for cause in mark.causes}
        fresh = codes - before - known
        sure = Use(
            foreign=tuple(finding for finding in use.foreign if finding.code not in fresh),
            left=tuple(finding for finding in use.left if finding.code not in fresh),
        )
        events = [*self._marked(state, uuid, MarkKind.FOREIGN, sure.foreign, seen.at)]
        events += self._quarantine(state, uuid, live, sure, seen)
        return events, bool(fresh)

    def _unclear_use(
        self, state: HostState, uuid: str, live: GpuLive, holders: Sequence[JobId], seen: Look
    ) -> tuple[list[ev.Event], bool]:
        """Look at a GPU while it is not known whose processes there are.

        A quarantine ends when nothing at all is on it; one begins for memory on a GPU that nobody holds.
        """
        if _mark(state, uuid, MarkKind.QUARANTINED) is not None:
            if holders or busy_reasons(LiveFacts(gpus=(live,)), (uuid,)):
                return [], False
            return [ev.GpuCleared(uuid=uuid, kind=MarkKind.QUARANTINED)], False
        told = holders or _mark(state, uuid, MarkKind.FOREIGN) is not None
        stray = () if told else stray_memory(live)
        codes = frozenset(finding.code for finding in stray)
        before, self._suspects[uuid] = self._suspects.get(uuid, frozenset()), codes
        if codes - before:
            return [], True
        return [*self._marked(state, uuid, MarkKind.QUARANTINED, stray, seen.at)], False

    def _quarantine(
        self,
        state: HostState,
        uuid: str,
        live: GpuLive,
        use: Use,
        seen: Look,
    ) -> Iterable[ev.Event]:
        before = _mark(state, uuid, MarkKind.QUARANTINED)
        if before is not None and _is_stuck(state.jobs.get(before.job) if before.job is not None else None):
            return ()
        if before is None or use.left or _holders(state, uuid):
            return self._marked(state, uuid, MarkKind.QUARANTINED, use.left, seen.at)
        # It may have been quarantined for what is no leftover of a job: it stays until nothing is on it, or
        # the rest is known to be foreign.
        pids = [f"pid-{process.pid}" for process in live.processes or ()]
        explained = pids and set(pids) <= {finding.code for finding in use.foreign}
        names = {pid: who.words for pid, who in (seen.users or {}).items()}
        busy = {} if explained else busy_reasons(LiveFacts(gpus=(live,)), (uuid,), names=names)
        rest = [Finding(code, busy[uuid]) for code in pids or ["memory"]] if busy else []
        return self._marked(state, uuid, MarkKind.QUARANTINED, rest, seen.at)

    def _marked(
        self,
        state: HostState,
        uuid: str,
        kind: MarkKind,
        now: Collection[Finding],
        at: float,
    ) -> Iterator[ev.Event]:
        before = _mark(state, uuid, kind)
        causes = tuple(sorted(finding.code for finding in now))
        if before is None and not causes:
            return
        if before is not None and kind is MarkKind.FOREIGN and not before.causes:
            return  # not ours
        text = "; ".join(dict.fromkeys(finding.text for finding in now))
        if not causes:
            yield ev.GpuCleared(uuid=uuid, kind=kind)
        elif before is None or before.causes != causes:
            yield ev.GpuMarked(uuid=uuid, mark=Mark(kind=kind, reason=text, since=at, causes=causes))
        elif self._says_more(uuid, before, text, at):
            yield ev.GpuMarked(uuid=uuid, mark=replace(before, reason=text))

    def _says_more(self, uuid: str, before: Mark, text: str, at: float) -> bool:
        """Say whether a mark should be worded anew: at once, but for mere sizes, which change often."""
        if text == before.reason:
            return False
        key = (uuid, before.kind)
        only_sizes = _SIZES.sub("", text) == _SIZES.sub("", before.reason)
        if only_sizes and at - max(self._sized.get(key, 0.0), before.since) < TOLD_AGAIN_SECONDS:
            return False
        self._sized[key] = at
        return True


def _mark(state: HostState, uuid: str, kind: MarkKind) -> Mark | None:
    return next((mark for mark in state.marks.get(uuid, ()) if mark.kind is kind), None)


def _xids_of(causes: Iterable[str]) -> Iterator[int]:
    for cause in causes:
        number = cause.removeprefix(XID_CAUSE)
        if number != cause and number.isdecimal():
            yield int(number)


def _holders(state: HostState, uuid: str) -> list[JobId]:
    """Return the jobs that may have processes on a GPU."""
    return [
        job.id
        for job in state.jobs.values()
        if job.state in HOLDING and job.allocation is not None and uuid in job.allocation.gpus
    ]


def _being_cleared(state: HostState, uuid: str) -> bool:
    return any(
        job.state is JobState.STARTING and job.allocation is not None and uuid in job.allocation.gpus
        for job in state.jobs.values()
    )


def _is_stuck(job: Job | None) -> bool:
    return job is not None and job.stop is not None and job.stop.phase is StopPhase.STUCK

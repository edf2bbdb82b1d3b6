"""One function for each request: what topod answers, and what it refuses."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from topod import __version__
from topod.adapters.secret_files import checked_secrets
from topod.daemon.following import Following
from topod.daemon.logreader import LogReader
from topod.daemon.mailbox import Mailbox
from topod.daemon.patience import Patience
from topod.daemon.planning import Planning
from topod.daemon.sessions import Sessions
from topod.daemon.storage import Store
from topod.daemon.views import fairness_view, host_view, job_line, job_view, resumed_text
from topod.errors import JobRejectedError, NotFoundError, TopodError, UsageError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle import events as ev
from topod.lifecycle.asking import why_not_requeued
from topod.lifecycle.states import ENDED, HostState, Job, JobState, Mark, MarkKind
from topod.model.arrays import whole
from topod.model.job import JobId, JobSpec
from topod.model.topology import Gpu
from topod.ports import Clock, ContainerRuntime
from topod.protocol import replies as rp
from topod.protocol import requests as rq
from topod.protocol.codec import PROTOCOL_VERSION
from topod.shell.checks import (
    CannotRunError,
    asks_for_room,
    check_priority,
    check_runs,
    check_spec,
    ended,
    possible,
)
from topod.shell.configured import unconfigured
from topod.shell.defects import internal
from topod.shell.dependencies import check_array, never_met, refuse_unmet, resolved
from topod.shell.elsewhere import one_host_only, refuse_fleet_wishes
from topod.shell.health import Health

JOBS_MAX: Final = 10_000
EVENTS_MAX: Final = 10_000
TOKEN_CHARS_MAX: Final = 200

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What does not change while the daemon runs."""

    state_dir: str
    events_endpoint: str
    notes: tuple[str, ...]
    started_at: float
    groups: Mapping[str, list[str]] = field(default_factory=dict)
    """The Unix groups that the configuration names, by key."""
    configured: Callable[[], Awaitable[rp.Configuration]] = unconfigured


class Service:
    """Answers requests from the mailbox, the store and the runtime. Used from the event loop only."""

    def __init__(
        self,
        mailbox: Mailbox,
        store: Store,
        runtime: ContainerRuntime,
        tables: TopologyTables,
        *,
        clock: Clock,
        health: Health,
        identity: Identity,
    ) -> None:
        self._mailbox = mailbox
        self._store = store
        self._runtime = runtime
        self._tables = tables
        self._topology = tables.topology
        self._clock = clock
        self._health = health
        self._identity = identity
        self._patience = Patience(mailbox)
        self.logs = LogReader(mailbox, runtime, self._patience, self._find)
        self._planning = Planning(mailbox, tables, clock=clock)
        self._following = Following(
            mailbox,
            store,
            self._topology,
            self._patience,
            clock=clock,
            health=health,
            host=lambda: self.host().host,
        )
        self.sessions = Sessions(runtime)

    async def answer(self, request: rq.AnyRequest) -> rp.AnyReply:
        """Return the reply to any request. Raises `TopodError` and nothing else."""
        try:
            return await self._answer(request)
        except TopodError:
            raise
        except Exception as error:
            raise internal(log, "request.failed", request, error, "topod failed at this request") from error

    async def _answer(self, request: rq.AnyRequest) -> rp.AnyReply:  # noqa: C901, PLR0912 - one case each
        reply: rp.AnyReply
        refuse_fleet_wishes(request)
        match request:
            case rq.Hello():
                reply = self.hello()
            case rq.Submit():
                reply = await self.submit(request)
            case rq.DryRun():
                reply = await self.dry_run(request.spec)
            case rq.ListJobs():
                reply = await self.list_jobs(request)
            case rq.GetJob():
                reply = self._jobs(await self._find(request.job), marks=self._mailbox.state.marks)
            case rq.GetArray():
                reply = await self.array(request.job)
            case rq.WaitJob():
                reply = await self.wait_job(request)
            case rq.Cancel():
                reply = await self.cancel(request)
            case rq.Requeue():
                reply = await self.requeue(request)
            case rq.SetPriority():
                reply = await self.set_priority(request)
            case rq.Drain():
                reply = await self.drain(request)
            case rq.Resume():
                reply = await self.resume(request)
            case rq.GetHost():
                reply = self.host()
            case rq.GetConfig():
                reply = await self._identity.configured()
            case rq.GetFairness():
                reply = fairness_view(self._mailbox.state, self._clock.now(), self._mailbox.rules, request.by)
            case rq.PlanMoves():
                reply = await self._planning.plan(request)
            case rq.MakeMoves():
                reply = await self._planning.make(request)
            case rq.ReadLog():
                reply = await self.logs.read(request)
            case rq.Exec() | rq.ExecTalk() | rq.ExecStop():
                reply = await self.sessions.answer(request, self._find)
            case rq.ReadEvents():
                reply = await self.read_events(request)
            case rq.Follow():
                reply = await self._following.answer(request)
            case rq.OfFleet():
                raise one_host_only()
        return reply

    def hello(self) -> rp.Welcome:
        """Say who answers."""
        ahead = self._health.coordinator_ahead
        return rp.Welcome(
            version=__version__,
            protocol=PROTOCOL_VERSION,
            host=self._topology.name,
            emulated=self._topology.emulated,
            runtime=self._runtime.name,
            runtime_text=self._health.runtime_text,
            engine=self._runtime.engine_url,
            pid=os.getpid(),
            state_dir=self._identity.state_dir,
            events_endpoint=self._identity.events_endpoint,
            generation=self._mailbox.state.generation,
            started_at=self._identity.started_at,
            notes=self._notes(),
            troubles=self._health.notes,
            groups=dict(self._identity.groups),
            metrics_url=self._health.metrics_url,
            now=self._clock.now(),
            coordinator_ahead=ahead.seconds if ahead else None,
            coordinator_ahead_within=ahead.within if ahead else 0.0,
        )

    async def submit(self, request: rq.Submit) -> rp.Jobs:
        """Queue a job, or an array; the answer comes when it is durable."""
        if len(request.token) > TOKEN_CHARS_MAX:
            raise UsageError(f"the token has {len(request.token)} characters, {TOKEN_CHARS_MAX} are allowed")
        check_spec(request.spec, self._tables, self._mailbox.rules, self._runtime.name)
        check_array(request.array)
        if request.spec.secrets:
            await asyncio.to_thread(checked_secrets, request.spec)
        spec = await resolved(request.spec, self._find)
        await refuse_unmet(spec, request.token, self._find, self._store.submitted)
        asked = ev.Submitted(spec=spec, array=request.array, image_here=self._runtime.image_seen(spec))
        done = await self._mailbox.ask(asked, token=request.token)
        assert done.job is not None
        return await self.array(done.job)

    async def dry_run(self, spec: JobSpec) -> rp.Planned:
        """Say what the job would get now, or why `submit` would refuse it."""
        check_priority(spec.request.priority)
        never = await never_met(await resolved(spec, self._find), self._find)
        if never is not None:
            return rp.Planned(feasible=False, never=True, reason=never)
        try:
            if not asks_for_room(spec):
                check_runs(spec, self._runtime.name)
            if spec.secrets:
                await asyncio.to_thread(checked_secrets, spec)
        except (CannotRunError, JobRejectedError) as refused:
            return rp.Planned(feasible=False, never=True, reason=refused.message)
        return await self._planning.dry_run(spec)

    async def array(self, first: int) -> rp.Jobs:
        """Return all jobs of an array that are still known; a job that is the first of none by itself."""
        job = await self._find(first)
        members = await self._known(whole(job.id, job.array)[1:])
        return self._jobs(job, *(one for _, one in sorted(members.items())), marks=self._mailbox.state.marks)

    async def list_jobs(self, request: rq.ListJobs) -> rp.Jobs | rp.JobLines:
        """List what has not ended, or the last that have."""
        if request.ended:
            limit = min(request.limit, JOBS_MAX)
            found = await asyncio.to_thread(self._store.ended_jobs, limit, request.user)
            return self._lines(found) if request.brief else self._list(found)
        jobs = sorted(self._mailbox.state.jobs.values(), key=lambda job: job.id)
        wanted = (job for job in jobs if request.user is None or job.spec.user == request.user)
        unended = [job for job in wanted if job.state not in ENDED]
        if request.brief:
            return self._lines(unended)
        return self._list(unended, marks=self._mailbox.state.marks)

    async def wait_job(self, request: rq.WaitJob) -> rp.Jobs:
        """Answer when the job is in one of the states, has ended, or time is up."""
        known = {state.value for state in JobState}
        if unknown := [name for name in request.states if name not in known]:
            raise UsageError(f"no such job state: {unknown[0]}", hint=f"states: {', '.join(sorted(known))}")
        ident = JobId(request.job)
        await self._find(request.job)

        def done(state: HostState) -> bool:
            job = state.jobs.get(ident)
            return job is None or job.state in ENDED or job.state.value in request.states

        await self._patience.until(done, request.timeout)
        return self._jobs(await self._find(request.job))

    async def cancel(self, request: rq.Cancel) -> rp.Jobs:
        """Stop jobs for good; whoever has ended by now is as wanted, unless that is all of them."""
        live, _ = possible(await self._find_all(request.jobs), ended)
        if live:
            first, *also = dict.fromkeys(job.id for job in live)
            await self._mailbox.ask(ev.CancelRequested(job=first, also=tuple(also), by=request.by))
        return self._jobs(*await self._find_all(request.jobs))

    async def requeue(self, request: rq.Requeue) -> rp.Jobs:
        """Stop running jobs and queue them again; with those that cannot be told why, unless none can."""
        running, refused = possible(await self._find_all(request.jobs), why_not_requeued)
        idents = list(dict.fromkeys(job.id for job in running))
        if idents:
            first, *also = idents
            await self._mailbox.ask(ev.RequeueRequested(job=first, also=tuple(also), by=request.by))
        return msgspec.structs.replace(self._jobs(*await self._find_all(idents)), refused=refused)

    async def set_priority(self, request: rq.SetPriority) -> rp.Jobs:
        """Change the priority of jobs; of those that have ended it stays, unless that is all of them."""
        check_priority(request.priority)
        idents = list(dict.fromkeys([request.job, *request.also]))
        live, _ = possible(await self._find_all(idents), ended)
        changed = [ev.PriorityChanged(job=job.id, priority=request.priority, by=request.by) for job in live]
        await asyncio.gather(*map(self._mailbox.ask, changed))
        return self._jobs(*await self._find_all(idents))

    async def drain(self, request: rq.Drain) -> rp.Done:
        """Hand out no more of the host, or of one GPU."""
        if request.gpu is None:
            await self._mailbox.ask(ev.HostDrained(reason=request.reason))
            return rp.Done(text="the host is drained; what runs goes on")
        gpu = self._gpu(request.gpu)
        mark = Mark(kind=MarkKind.DRAINED, reason=request.reason, since=self._clock.now())
        await self._mailbox.ask(ev.GpuMarked(uuid=gpu.uuid, mark=mark))
        return rp.Done(text=f"GPU{gpu.index} is drained; a job on it goes on")

    async def resume(self, request: rq.Resume) -> rp.Done:
        """Undo `drain`."""
        if request.gpu is None:
            await self._mailbox.ask(ev.HostResumed())
            return rp.Done(text="the host takes jobs again")
        gpu, before = self._gpu(request.gpu), self._mailbox.state.marks
        done = await self._mailbox.ask(ev.GpuResumed(uuid=gpu.uuid))
        return rp.Done(text=resumed_text(gpu, before, done.state.marks))

    def host(self) -> rp.Host:
        """Describe the host now."""
        view = host_view(
            self._topology,
            self._mailbox.state,
            now=self._clock.now(),
            runtime=self._runtime.name,
            notes=self._notes(),
            rules=self._mailbox.rules,
            idle=self._health.idle_since,
        )
        return rp.Host(host=view)

    async def read_events(self, request: rq.ReadEvents) -> rp.Events:
        """Return a piece of the host's story."""
        limit = max(0, min(request.limit, EVENTS_MAX))
        since = max(request.since, -EVENTS_MAX)
        found = await asyncio.to_thread(self._store.events, since, limit, request.job)
        return rp.Events(events=list(found))

    async def owner(self, ident: int) -> tuple[str, str]:
        """Return the label and the user of a job, ended or not. Raises `NotFoundError`."""
        job = await self._find(ident)
        return job.label, job.spec.user

    # --- helpers ------------------------------------------------------------------------------------------

    def _jobs(self, *jobs: Job, marks: Mapping[str, tuple[Mark, ...]] | None = None) -> rp.Jobs:
        now = self._clock.now()
        return rp.Jobs(jobs=[job_view(job, marks, now=now, rules=self._mailbox.rules) for job in jobs])

    def _list(self, jobs: Iterable[Job], marks: Mapping[str, tuple[Mark, ...]] | None = None) -> rp.Jobs:
        return msgspec.structs.replace(self._jobs(*jobs, marks=marks), troubles=self._health.notes)

    def _lines(self, jobs: Iterable[Job]) -> rp.JobLines:
        now, marks = self._clock.now(), self._mailbox.state.marks
        lines = [job_line(job, marks, now=now, rules=self._mailbox.rules) for job in jobs]
        return rp.JobLines(jobs=lines, troubles=self._health.notes)

    def _notes(self) -> list[str]:
        notes = [*self._identity.notes, *self._health.notes]
        if not self._mailbox.recovered:
            notes.append("runtime: not looked at yet; jobs are queued and nothing is started or stopped")
        return notes

    async def _find(self, ident: int) -> Job:
        (job,) = await self._find_all([ident])
        return job

    async def _find_all(self, idents: Sequence[int]) -> list[Job]:
        known = await self._known(idents)
        for ident in idents:
            if ident not in known:
                raise NotFoundError(f"no job {ident}", hint="`topoctl ps` and `topoctl history` list them")
        return [known[ident] for ident in idents]

    async def _known(self, idents: Sequence[int]) -> dict[int, Job]:
        """Return those jobs that there ever were, with one look into the store for all that ended."""
        jobs = self._mailbox.state.jobs
        missing = [ident for ident in idents if ident not in jobs]
        stored = await asyncio.to_thread(self._store.jobs, missing) if missing else {}
        return stored | {ident: jobs[JobId(ident)] for ident in idents if ident in jobs}

    def _gpu(self, name: str) -> Gpu:
        gpus = self._topology.gpus
        found = [gpu for gpu in gpus if name in (str(gpu.index), f"GPU{gpu.index}", gpu.uuid)]
        if not found:
            raise NotFoundError(f"no GPU {name} on {self._topology.name}, which has {len(gpus)} GPUs")
        return found[0]

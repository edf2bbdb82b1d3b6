"""One function for each request: what a coordinator answers, and what it refuses."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from topod import __version__
from topod.coordinator.counting import counts_of
from topod.coordinator.dryrun import dry_run
from topod.coordinator.following import Following
from topod.coordinator.hosts import Hosts
from topod.coordinator.mailbox import Mailbox
from topod.coordinator.passing import Passing
from topod.coordinator.storage import FleetStore
from topod.coordinator.views import About, fairness_view, host_views, job_line, job_view
from topod.errors import ConflictError, NotFoundError, TopodError, UsageError
from topod.fleet import events as ev
from topod.fleet.asking import refusal_of, why_not_requeued
from topod.fleet.states import ENDED, FleetJob, FleetJobId, FleetJobState, FleetRequest, FleetState
from topod.model.arrays import whole
from topod.model.job import JobSpec
from topod.model.rules import Rules
from topod.ports import Clock
from topod.protocol import replies as rp
from topod.protocol import requests as rq
from topod.protocol.codec import PROTOCOL_VERSION
from topod.shell.checks import CannotRunError, check_image, check_priority, possible
from topod.shell.configured import unconfigured
from topod.shell.defects import internal
from topod.shell.dependencies import check_array, never_met, refuse_unmet, resolved
from topod.shell.elsewhere import a_host_of_the_fleet
from topod.shell.health import Health

WAITERS_MAX: Final = 512
"""Requests that may wait at the same time; one more is answered at once."""
WAIT_SECONDS_MAX: Final = 60.0
JOBS_MAX: Final = 10_000
EVENTS_MAX: Final = 10_000
TOKEN_CHARS_MAX: Final = 200
MEMBERS_MAX: Final = 256
NAME: Final = "fleet"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What does not change while the coordinator runs."""

    state_dir: str
    events_endpoint: str
    endpoint: str
    started_at: float
    shared: bool = False
    """Several coordinators may lead in turn."""
    configured: Callable[[], Awaitable[rp.Configuration]] = unconfigured


class Service:
    """Answers requests from the mailbox, the store and the hosts. Used from the event loop only."""

    def __init__(
        self,
        mailbox: Mailbox,
        store: FleetStore,
        hosts: Hosts,
        *,
        clock: Clock,
        health: Health,
        identity: Identity,
    ) -> None:
        self._mailbox = mailbox
        self._store = store
        self._hosts = hosts
        self._clock = clock
        self._health = health
        self._identity = identity
        self._first_fence = mailbox.state.next_fence
        self._waiting = 0
        self._passing = Passing(hosts, self._find, mailbox.until)
        self.following: Final = Following(
            mailbox,
            store,
            clock=clock,
            health=health,
            endpoint=identity.endpoint,
            emulated=hosts.is_emulated,
        )

    async def answer(self, request: rq.AnyRequest) -> rp.AnyReply:
        """Return the reply to any request. Raises `TopodError` and nothing else."""
        try:
            return await self._answer(request)
        except TopodError:
            raise
        except Exception as error:
            raise internal(log, "request.failed", request, error, "the coordinator failed at this") from error

    async def owner(self, ident: int) -> tuple[str, str]:
        """Return a job's label and user. Raises `NotFoundError`."""
        job = await self._find(ident)
        return job.label, job.spec.user

    async def _answer(self, request: rq.AnyRequest) -> rp.AnyReply:  # noqa: C901, PLR0911, PLR0912 - one case each
        match request:
            case rq.Hello():
                return self.hello()
            case rq.Submit():
                return await self.submit(request)
            case rq.DryRun():
                return await self.dry_run(request)
            case rq.ListJobs():
                return await self.list_jobs(request)
            case rq.GetJob():
                return self._jobs(await self._find(request.job))
            case rq.GetArray():
                return await self.array(request.job)
            case rq.WaitJob():
                return await self.wait_job(request)
            case rq.Cancel():
                return await self.cancel(request)
            case rq.Requeue():
                return await self.requeue(request)
            case rq.SetPriority():
                return await self.set_priority(request)
            case rq.GetHosts():
                return self.hosts()
            case rq.GetCounts():
                mail, now = self._mailbox, self._clock.now()
                return counts_of(mail.state, mail.view, now, self._hosts.counts, self._first_fence)
            case rq.DrainHost() | rq.ResumeHost() | rq.LabelHost() | rq.RemoveHost():
                return await self.administer(request)
            case rq.GetFairness():
                budgets = self._mailbox.board.counted.uses
                return fairness_view(self._mailbox.state, budgets, self._mailbox.rules, request.by)
            case rq.GetConfig():
                return await self._identity.configured()
            case rq.ReadEvents():
                return await self.read_events(request)
            case rq.ReadLog():
                return await self._passing.read_log(request)
            case rq.Exec() | rq.ExecTalk() | rq.ExecStop():
                return await self._passing.execute(request)
            case rq.AtHost():
                return await self._passing.at_host(request, self._mailbox.state.hosts)
            case rq.Drain():
                raise a_host_of_the_fleet("drain", "`topoctl host drain NAME` takes a whole host")
            case rq.Resume():
                raise a_host_of_the_fleet("resume", "`topoctl host resume NAME` takes a whole host")
            case rq.GetHost():
                raise a_host_of_the_fleet("topo", "`topoctl hosts` lists them")
            case rq.Follow():
                return await self.following.answer(request)
            case rq.PlanMoves() | rq.MakeMoves():
                raise a_host_of_the_fleet("rebalance", "jobs move within one host")

    def hello(self) -> rp.Welcome:
        """Say who answers."""
        state = self._mailbox.state
        leads = f", leads for the {state.epoch}. time" if self._identity.shared else ""
        hosts = f"{len(state.hosts)} host{'' if len(state.hosts) == 1 else 's'}"
        text = f"{hosts}, port {self._identity.endpoint}{leads}"
        return welcome(self._identity, text, self._health, state.generation, now=self._clock.now())

    async def submit(self, request: rq.Submit) -> rp.Jobs:
        """Queue a job of the fleet, or an array; the answer comes when it is durable."""
        if len(request.token) > TOKEN_CHARS_MAX:
            raise UsageError(f"the token has {len(request.token)} characters, {TOKEN_CHARS_MAX} are allowed")
        if not request.spec.command and request.spec.image is None:
            raise UsageError("nothing to run: give a command, an image, or both")
        check_image(request.spec)
        check_array(request.array)
        spec = await resolved(request.spec, self._find)
        asked = _asked(request, spec, self._mailbox.rules)
        await refuse_unmet(spec, request.token, self._find, self._store.submitted)
        done = await self._mailbox.ask(ev.Submitted(request=asked, array=request.array), token=request.token)
        assert done.job is not None
        return await self.array(done.job)

    async def dry_run(self, request: rq.DryRun) -> rp.Planned:
        """Say what the fleet would give the job now."""
        spec = await resolved(request.spec, self._find)
        try:
            asked = _asked(request, spec, self._mailbox.rules)
        except CannotRunError as refused:
            return rp.Planned(feasible=False, never=True, reason=refused.message)
        never = await never_met(spec, self._find)
        if never is not None:
            return rp.Planned(feasible=False, never=True, reason=never)
        seen = self._mailbox.view.hosts
        tables = {name: host.tables for name, host in seen.items()}
        return dry_run(self._mailbox.board, self._mailbox.state, tables, asked, self._clock.now())

    async def array(self, first: int) -> rp.Jobs:
        """Return all jobs of an array; a job that is the first of none by itself."""
        job = await self._find(first)
        return self._jobs(job, *await self._find_all(whole(job.id, job.array)[1:]))

    async def list_jobs(self, request: rq.ListJobs) -> rp.Jobs | rp.JobLines:
        """List what has not ended, or the last that have."""
        if request.ended:
            limit = min(request.limit, JOBS_MAX)
            found: Sequence[FleetJob] = await asyncio.to_thread(self._store.ended_jobs, limit, request.user)
        else:
            jobs = sorted(self._mailbox.state.jobs.values(), key=lambda job: job.id)
            found = [job for job in jobs if request.user is None or job.spec.user == request.user]
        troubles = self._health.notes
        if request.brief:
            now = self._clock.now()
            return rp.JobLines(
                jobs=[job_line(job, now, self._mailbox.rules) for job in found], troubles=troubles
            )
        return msgspec.structs.replace(self._jobs(*found), troubles=troubles)

    async def wait_job(self, request: rq.WaitJob) -> rp.Jobs:
        """Answer when the job is in one of the states, has ended, or time is up."""
        # Those that only a host has are no mistake.
        known = {*(state.value for state in FleetJobState), "preempted", "returned"}
        if unknown := [name for name in request.states if name not in known]:
            raise UsageError(f"no such job state: {unknown[0]}", hint=f"states: {', '.join(sorted(known))}")
        ident = FleetJobId(request.job)
        await self._find(request.job)

        def done(state: FleetState) -> bool:
            job = state.jobs.get(ident)
            return job is None or job.state.value in request.states

        await self._patiently(done, request.timeout)
        return self._jobs(await self._find(request.job))

    async def cancel(self, request: rq.Cancel) -> rp.Jobs:
        """Stop jobs for good; whoever has ended by now is as wanted, unless that is all of them."""
        idents = list(dict.fromkeys(request.jobs))
        found = await self._find_all(idents)
        live, _ = possible(found, _ended)
        await self._each([ev.CancelRequested(job=job.id, by=request.by) for job in live])
        return self._jobs(*await self._find_all(idents))

    async def requeue(self, request: rq.Requeue) -> rp.Jobs:
        """Stop running jobs and place them anew; with those that cannot be told why, unless none can."""
        found = await self._find_all(list(dict.fromkeys(request.jobs)))
        running, refused = possible(found, why_not_requeued)
        await self._each([ev.RequeueRequested(job=job.id, by=request.by) for job in running])
        now = await self._find_all([job.id for job in running])
        return msgspec.structs.replace(self._jobs(*now), refused=refused)

    async def set_priority(self, request: rq.SetPriority) -> rp.Jobs:
        """Change the priority of jobs; of those that have ended it stays, unless that is all of them."""
        check_priority(request.priority)
        idents = list(dict.fromkeys([request.job, *request.also]))
        live, _ = possible(await self._find_all(idents), _ended)
        await self._each(
            [ev.PriorityChanged(job=job.id, priority=request.priority, by=request.by) for job in live]
        )
        return self._jobs(*await self._find_all(idents))

    async def _each(
        self, events: Iterable[ev.CancelRequested | ev.RequeueRequested | ev.PriorityChanged]
    ) -> None:
        """Have them all done; a job that ended of itself meanwhile is none to complain about."""
        for done in await asyncio.gather(*map(self._mailbox.ask, events), return_exceptions=True):
            if isinstance(done, BaseException) and not isinstance(done, ConflictError):
                raise done

    def hosts(self) -> rp.Hosts:
        """Describe every host."""
        sessions = {name: self._hosts.session(name) for name in self._mailbox.state.hosts}
        about = {
            name: About(session.hello.runtime, session.hello.emulated, self._hosts.troubles(name))
            for name, session in sessions.items()
            if session is not None
        }
        views = host_views(self._mailbox.state, self._mailbox.view, self._clock.now(), about)
        return rp.Hosts(hosts=views)

    async def administer(
        self, request: rq.DrainHost | rq.ResumeHost | rq.LabelHost | rq.RemoveHost
    ) -> rp.Done:
        """Do what an administrator wants of a host."""
        host = request.host
        if host not in self._mailbox.state.hosts:
            raise NotFoundError(f"no host {host} in this fleet", hint="topoctl hosts lists them")
        match request:
            case rq.DrainHost():
                cordoned = ev.HostCordoned(host=host, reason=request.reason, requeue=request.requeue)
                await self._mailbox.ask(cordoned)
                rest = "its jobs go on elsewhere" if request.requeue else "what runs there goes on"
                return rp.Done(text=f"{host} gets no new jobs; {rest}")
            case rq.ResumeHost():
                await self._mailbox.ask(ev.HostResumed(host=host))
                return rp.Done(text=f"{host} gets jobs again")
            case rq.LabelHost():
                record = self._mailbox.state.hosts[host]
                labels = {**record.labels, **request.labels}
                for name in request.remove:
                    if name not in labels:
                        raise NotFoundError(f"{host} has no label {name} of an administrator's")
                    del labels[name]
                done = await self._mailbox.ask(ev.HostLabelled(host=host, labels=labels))
                now = done.state.hosts[host].all_labels
                shown = ", ".join(f"{name}={value}" for name, value in sorted(now.items())) or "none"
                return rp.Done(text=f"labels of {host}: {shown}")
            case rq.RemoveHost():
                await self._mailbox.ask(ev.HostRemoved(host=host, dead=request.dead, by=request.by))
                return rp.Done(text=f"{host} is no part of the fleet any more")

    async def read_events(self, request: rq.ReadEvents) -> rp.Events:
        """Return a piece of the fleet's story."""
        limit = max(0, min(request.limit, EVENTS_MAX))
        since = max(request.since, -EVENTS_MAX)
        found = await asyncio.to_thread(self._store.events, since, limit, request.job)
        return rp.Events(events=list(found))

    # --- helpers ------------------------------------------------------------------------------------------

    def _jobs(self, *jobs: FleetJob) -> rp.Jobs:
        now = self._clock.now()
        return rp.Jobs(jobs=[job_view(job, now, self._mailbox.rules) for job in jobs])

    async def _find(self, ident: int) -> FleetJob:
        (job,) = await self._find_all([ident])
        return job

    async def _find_all(self, idents: Sequence[int]) -> list[FleetJob]:
        jobs = self._mailbox.state.jobs
        known: dict[int, FleetJob] = {
            ident: jobs[FleetJobId(ident)] for ident in idents if FleetJobId(ident) in jobs
        }
        missing = [ident for ident in idents if ident not in known]
        known |= await asyncio.to_thread(self._store.jobs, missing) if missing else {}
        for ident in idents:
            if ident not in known:
                hint = "`topoctl ps` and `topoctl history` list them"
                raise NotFoundError(f"no job {ident} in this fleet", hint=hint)
        return [known[ident] for ident in idents]

    async def _patiently(self, done: Callable[[FleetState], bool], seconds: float) -> None:
        bounded = max(0.0, min(seconds, WAIT_SECONDS_MAX)) if self._waiting < WAITERS_MAX else 0.0
        self._waiting += 1
        try:
            await self._mailbox.until(done, bounded)
        finally:
            self._waiting -= 1


def welcome(
    identity: Identity, text: str, health: Health, generation: int = 0, *, now: float = 0.0
) -> rp.Welcome:
    """Return who answers, with how it stands in words."""
    notes = health.notes
    return rp.Welcome(
        version=__version__,
        protocol=PROTOCOL_VERSION,
        host=NAME,
        emulated=False,
        runtime="fleet",
        runtime_text=text,
        pid=os.getpid(),
        state_dir=identity.state_dir,
        events_endpoint=identity.events_endpoint,
        generation=generation,
        started_at=identity.started_at,
        notes=notes,
        troubles=notes,
        fleet=True,
        metrics_url=health.metrics_url,
        now=now,
    )


def _asked(request: rq.Submit | rq.DryRun, spec: JobSpec, rules: Rules) -> FleetRequest:
    """Return what is asked of the fleet. Raises `UsageError` for what cannot be meant."""
    check_priority(request.spec.request.priority)
    if request.hosts > MEMBERS_MAX:
        raise UsageError(f"a job runs on {MEMBERS_MAX} hosts at most, not {request.hosts}")
    try:
        asked = FleetRequest(
            spec=spec,
            hosts=request.hosts,
            select=tuple(request.select),
            gpu_model=request.gpu_model,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    refusal = refusal_of(asked, rules)
    if refusal is not None:
        raise CannotRunError(refusal)
    return asked


def _ended(job: FleetJob) -> str | None:
    return f"{job.label} has ended: {job.state.value}" if job.state in ENDED else None

"""Stands before the service: who asks, whether they may, in whose name, and what they are told.

Rule: the name of a user comes from the kernel or from the key, never from the message; what is not listed
needs an administrator.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from enum import Enum, auto
from typing import Final

import msgspec

from topod.adapters.peers import Peer, RemotePeer
from topod.errors import NotAllowedError, TopodError
from topod.model.job import JobSpec
from topod.model.roles import Role
from topod.protocol import replies as rp
from topod.protocol import requests as rq
from topod.protocol.views import JobView
from topod.shell.access import ANYBODY, Access, Caller
from topod.shell.checks import asks_for_room
from topod.shell.logs import Key
from topod.shell.vetting import PolicyError, Vet, allow

log = logging.getLogger(__name__)

HIDDEN: Final = "(hidden)"
"""Stands for the value of a variable that is another user's."""


class Need(Enum):
    """What a request needs."""

    NOTHING = auto()
    VIEW = auto()
    SUBMIT = auto()
    OWN = auto()
    """The job is the caller's own, who may submit; or the caller administers."""
    ADMINISTER = auto()


NEEDS: Final[Mapping[type[rq.Request], Need]] = {
    rq.Hello: Need.NOTHING,
    rq.ListJobs: Need.VIEW,
    rq.GetJob: Need.VIEW,
    rq.GetArray: Need.VIEW,
    rq.WaitJob: Need.VIEW,
    rq.DryRun: Need.VIEW,
    rq.GetHost: Need.VIEW,
    rq.GetHosts: Need.VIEW,
    rq.GetCounts: Need.VIEW,
    rq.GetFairness: Need.VIEW,
    rq.PlanMoves: Need.VIEW,
    rq.ReadEvents: Need.VIEW,
    rq.Follow: Need.VIEW,
    rq.Submit: Need.SUBMIT,
    rq.Cancel: Need.OWN,
    rq.Requeue: Need.OWN,
    rq.SetPriority: Need.OWN,
    rq.ReadLog: Need.OWN,
    rq.Exec: Need.OWN,
    rq.ExecTalk: Need.SUBMIT,
    rq.ExecStop: Need.SUBMIT,
    rq.GetConfig: Need.ADMINISTER,
    rq.Drain: Need.ADMINISTER,
    rq.Resume: Need.ADMINISTER,
    rq.MakeMoves: Need.ADMINISTER,
    rq.DrainHost: Need.ADMINISTER,
    rq.ResumeHost: Need.ADMINISTER,
    rq.LabelHost: Need.ADMINISTER,
    rq.RemoveHost: Need.ADMINISTER,
}
"""A request that works on jobs names them where `_jobs_of` looks."""

_ROLES: Final = {Need.VIEW: Role.VIEW, Need.SUBMIT: Role.SUBMIT, Need.OWN: Role.SUBMIT}


class Gate:
    """Answers the requests of peers. Used from the event loop only."""

    def __init__(
        self,
        access: Access,
        *,
        answer: Callable[[rq.AnyRequest], Awaitable[rp.AnyReply]],
        owner: Callable[[int], Awaitable[tuple[str, str]]],
        vet: Vet = allow,
    ) -> None:
        """`answer` does what is asked; `owner` returns a job's label and user, or raises `NotFoundError`.

        `vet` judges what a job asks for, by the host's policy.
        """
        self._vet = vet
        self._access = access
        self._answer = answer
        self._owner = owner

    async def answer(self, request: rq.AnyRequest, peer: Peer | RemotePeer | None) -> rp.AnyReply:
        """Return the reply to a request of a peer. Raises `TopodError` and nothing else."""
        try:
            caller = await self._access.caller(peer)
            await self._check(request, caller)
            named = await self._vetted(_in_the_name_of(request, caller))
            if _need(request) is Need.ADMINISTER:
                extra = {
                    Key.EVENT: type(_asked(request)).__name__,
                    Key.PEER: f"{caller.user} {caller.source}",
                }
                log.info("request.administered", extra=extra)
        except TopodError as refused:
            if isinstance(refused, PolicyError) and isinstance(request, rq.DryRun):
                return rp.Planned(feasible=False, never=True, reason=refused.message)
            _note(request, peer, refused)
            raise
        return _told(await self._answer(named), caller)

    async def _check(self, request: rq.AnyRequest, caller: Caller) -> None:
        need = _need(request)
        if need is Need.NOTHING or caller.is_admin:
            return
        role = _ROLES.get(need, Role.ADMINISTER)
        if role not in caller.roles:
            raise self._lacks(caller, role, _WORDS.get(type(_asked(request)), "do this"))
        if need is Need.OWN:
            for ident in _jobs_of(request):
                label, user = await self._owner(ident)
                if not caller.owns(user):
                    verb = _TO_A_JOB.get(type(request), "do this to")
                    what = f"{verb} {label}, which belongs to {user or 'nobody'}"
                    raise self._lacks(caller, Role.ADMINISTER, what)
        if caller.max_priority is not None:
            _check_priority(request, caller.user, caller.max_priority)

    async def _vetted(self, request: rq.AnyRequest) -> rq.AnyRequest:
        """Return the request with the user that the policy chose. Raises `PolicyError`."""
        match request:
            case rq.Submit() | rq.DryRun():
                spec = await asyncio.to_thread(self._vet, _without_placeholder(request))
                user = spec.container_user
                return msgspec.structs.replace(request, spec=replace(request.spec, container_user=user))
            case _:
                return request

    def _lacks(self, caller: Caller, role: Role, what: str) -> NotAllowedError:
        if caller.by_key:
            has = ", ".join(one.value for one in Role if one in caller.roles)
            text = f"user {caller.user} may not {what}: that needs role {role}, and the key has {has}"
            return NotAllowedError(text, hint="an administrator gives roles in the file of authorised keys")
        groups = [group for group in self._access.groups_of(role) if group != ANYBODY]
        who = f"members of group {' or '.join(groups)}" if groups else "nobody but root"
        return NotAllowedError(f"user {caller.user} may not {what}: {who} may ({role} role)")


_WORDS: Final[Mapping[type[rq.Request], str]] = {
    rq.Submit: "submit jobs",
    rq.Drain: "drain",
    rq.Resume: "resume",
    rq.MakeMoves: "move jobs",
    rq.PlanMoves: "ask for moves",
    rq.ListJobs: "see jobs",
    rq.GetJob: "see jobs",
    rq.GetArray: "see jobs",
    rq.WaitJob: "see jobs",
    rq.GetHost: "see the host",
    rq.GetHosts: "see the hosts",
    rq.GetCounts: "see the hosts",
    rq.DrainHost: "drain hosts",
    rq.ResumeHost: "resume hosts",
    rq.LabelHost: "label hosts",
    rq.RemoveHost: "remove hosts",
    rq.GetFairness: "see quotas",
    rq.GetConfig: "see the configuration of a running daemon",
    rq.ReadEvents: "see events",
    rq.Follow: "see jobs",
    rq.ReadLog: "read logs",
    rq.Exec: "run commands in jobs",
    rq.ExecTalk: "run commands in jobs",
    rq.ExecStop: "run commands in jobs",
    rq.Cancel: "cancel jobs",
    rq.Requeue: "requeue jobs",
    rq.SetPriority: "change priorities",
    rq.DryRun: "ask for plans",
}


_TO_A_JOB: Final[Mapping[type[rq.Request], str]] = {
    rq.ReadLog: "read the log of",
    rq.Cancel: "cancel",
    rq.Requeue: "requeue",
    rq.SetPriority: "change the priority of",
}


def _need(request: rq.AnyRequest) -> Need:
    return NEEDS.get(type(_asked(request)), Need.ADMINISTER)


def _asked(request: rq.AnyRequest) -> rq.AnyRequest:
    """Return what is asked in the end, of whomever."""
    return request.request if isinstance(request, rq.AtHost) else request


def _without_placeholder(request: rq.Submit | rq.DryRun) -> JobSpec:
    unknown = isinstance(request, rq.DryRun) and asks_for_room(request.spec)
    return replace(request.spec, image=None) if unknown else request.spec


def _jobs_of(request: rq.AnyRequest) -> list[int]:
    if isinstance(request, rq.SetPriority):
        return [request.job, *request.also]
    many: list[int] | None = getattr(request, "jobs", None)
    one: int | None = getattr(request, "job", None)
    return many if many is not None else [] if one is None else [one]


def _check_priority(request: rq.AnyRequest, user: str, most: int) -> None:
    match request:
        case rq.Submit() | rq.DryRun():
            asked = request.spec.request.priority
        case rq.SetPriority():
            asked = request.priority
        case _:
            return
    if asked > most:
        raise NotAllowedError(
            f"user {user} may not ask for priority {asked}: {most} is the most ([security.max_priority])",
            hint=f"--priority {most}, or ask an administrator",
        )


def _in_the_name_of(request: rq.AnyRequest, caller: Caller) -> rq.AnyRequest:
    """Return the request with the caller's name in it; root may name somebody else."""
    match request:
        case rq.Submit() | rq.DryRun():
            if caller.is_host and request.spec.user:
                return request
            return msgspec.structs.replace(request, spec=replace(request.spec, user=caller.user))
        case _:
            pass
    if "by" in request.__struct_fields__:
        return msgspec.structs.replace(request, by=caller.user)
    return request


def _told(reply: rp.AnyReply, caller: Caller) -> rp.AnyReply:
    """Return the reply with nothing in it that is not the caller's business."""
    match reply:
        case rp.Welcome():
            return msgspec.structs.replace(
                reply, user=caller.user, roles=sorted(role.value for role in caller.roles)
            )
        case rp.Jobs() if not caller.is_admin:
            jobs = [_without_secrets(job, caller) for job in reply.jobs]
            return msgspec.structs.replace(reply, jobs=jobs)
        case _:
            return reply


def _without_secrets(job: JobView, caller: Caller) -> JobView:
    if caller.owns(job.user) or not job.spec.env:
        return job
    hidden = dict.fromkeys(job.spec.env, HIDDEN)
    return msgspec.structs.replace(job, spec=replace(job.spec, env=hidden))


def _note(request: rq.AnyRequest, peer: Peer | RemotePeer | None, refused: TopodError) -> None:
    match peer:
        case None:
            who = "nobody known"
        case RemotePeer():
            who = f"{peer} {peer.address}"
        case _:
            who = f"uid {peer.uid} gid {peer.gid} pid {peer.pid}"
    extra = {Key.EVENT: type(request).__name__, Key.PEER: who, Key.ERROR: refused.message}
    log.warning("request.refused", extra=extra)

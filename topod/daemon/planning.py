"""Answers what would happen: to a job that is not queued, to jobs that move; and has the moves made."""

import asyncio
from dataclasses import replace
from typing import Any, Final

from topod.daemon.mailbox import Mailbox
from topod.errors import ConflictError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle import admission
from topod.lifecycle import events as ev
from topod.lifecycle.moves_text import rebalance_data
from topod.lifecycle.moving import find_moves, movable_requests, new_place, why_no_moves
from topod.lifecycle.states import HostState
from topod.model.job import Allocation, JobId, JobSpec
from topod.model.moves import Goal, Rebalance
from topod.ports import Clock
from topod.protocol import replies as rp
from topod.protocol import requests as rq
from topod.rebalance.goals import make_goal
from topod.rebalance.search import rebalance

TRIES: Final = 5
"""So often moves are planned anew when the host has changed before they could be begun."""


class Planning:
    """Plans in threads: a search for moves may take a second. Used from the event loop only."""

    def __init__(self, mailbox: Mailbox, tables: TopologyTables, *, clock: Clock) -> None:
        self._mailbox = mailbox
        self._tables = tables
        self._clock = clock
        self._busy = asyncio.Lock()

    async def dry_run(self, spec: JobSpec) -> rp.Planned:
        """Say what the job would get now."""
        state, now = self._mailbox.state, self._clock.now()
        told = await asyncio.to_thread(admission.dry_run, self._tables, state, spec, now, self._mailbox.rules)
        return rp.Planned(
            feasible=told.feasible,
            plan=told.plan,
            reason=told.reason,
            details=list(told.details),
            never=told.never,
            drained=told.drained,
        )

    async def plan(self, request: rq.PlanMoves) -> rp.Moves:
        """Say which jobs would move. Raises `UsageError` for what cannot be meant."""
        goal = self._goal(request)
        async with self._busy:
            state = self._mailbox.state
            found, data = await asyncio.to_thread(self._think, state, goal)
        del found
        return self._told(goal, data, state)

    async def make(self, request: rq.MakeMoves) -> rp.Moves:
        """Let the jobs move. Raises `ConflictError` where they may not, or not as was expected."""
        goal = self._goal(request.plan)
        async with self._busy:
            for _ in range(TRIES):
                state = self._mailbox.state
                refusal = why_no_moves(state.drain, state.blind)
                if refusal:
                    raise ConflictError(f"no job is moved: {refusal}")
                found, data = await asyncio.to_thread(self._think, state, goal)
                _check(found, request)
                if not found.moves:
                    return self._told(goal, data, state)
                moves = tuple(new_place(self._tables, state, move) for move in found.moves)
                event = ev.MovesRequested(moves=moves, by=request.by, generation=state.generation)
                done = await self._mailbox.ask(event)
                if all(_moves(done.state, ident, place) for ident, place in moves):
                    return self._told(goal, data, done.state, made=True)
        raise ConflictError("the host changes too quickly; no job was moved", hint="try again")

    def _goal(self, request: rq.PlanMoves) -> Goal:
        return make_goal(
            self._tables,
            affinity=request.affinity,
            gpus=request.gpus,
            cpus=request.cpus,
            below=request.below,
            most=request.most,
        )

    def _think(self, state: HostState, goal: Goal) -> tuple[Rebalance, dict[str, Any]]:
        now = self._clock.now()
        taken, found = find_moves(self._tables, state, goal, now, self._mailbox.rules)
        fewer = None
        if len(found.moves) > 1:
            fewer_goal = replace(goal, most=len(found.moves) - 1)
            fewer = rebalance(self._tables, taken, movable_requests(state), fewer_goal)
        names = {str(ident): job.spec.name for ident, job in state.jobs.items()}
        idents = {str(ident): job.ident for ident, job in state.jobs.items()}
        return found, rebalance_data(found, fewer, names, idents)

    def _told(self, goal: Goal, data: dict[str, Any], state: HostState, *, made: bool = False) -> rp.Moves:
        return rp.Moves(affinity=goal.affinity.value, plan=data, generation=state.generation, made=made)


def _check(found: Rebalance, request: rq.MakeMoves) -> None:
    if not found.reached:
        raise ConflictError("no job is moved: not so many GPUs can be brought together")
    moves = {int(move.job): list(move.gpus) for move in found.moves}
    if request.expected is not None and moves != request.expected:
        raise ConflictError(
            "the host has changed since the moves were planned; no job was moved",
            hint="look again: topoctl rebalance",
        )


def _moves(state: HostState, ident: JobId, place: Allocation) -> bool:
    job = state.jobs.get(ident)
    return job is not None and job.pinned == place

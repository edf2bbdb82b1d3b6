"""Whether the victims that are told to stop are the fewest there can be: asked of brute force at that moment."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tests.oracles.brute_force import best
from tests.simulation.reasons import brute
from topod.flextopo.tables import TopologyTables
from topod.lifecycle import events as ev
from topod.lifecycle.holdings import occupancy
from topod.lifecycle.holds import current_hold
from topod.lifecycle.states import HostState, Job, Stage
from topod.model.rules import Rules


def too_many(
    tables: TopologyTables,
    rules: Rules,
    state: HostState,
    events: Sequence[ev.Event],
    *,
    after: HostState,
    now: float,
) -> str:
    """Say who stops more than it must, now that its container is there; empty when nobody does.

    `state` is that before the events. Only a step of one event is judged: with several, the moment in between
    is not known.
    """
    if len(events) != 1 or not isinstance(events[0], ev.Created):
        return ""
    job, then = state.jobs.get(events[0].job), after.jobs.get(events[0].job)
    if job is None or then is None or job.stage is not Stage.CREATING or then.stage is not Stage.CLEARING:
        return ""
    return _more_than_least(tables, rules, state, then, now) if then.victims else ""


def _more_than_least(tables: TopologyTables, rules: Rules, state: HostState, job: Job, now: float) -> str:
    taken = occupancy(tables.topology, state, now, rules, without=job.id)
    hold = current_hold(state.jobs, now, rules)
    if hold is not None and hold.binds(state.jobs[job.id], now, rules):
        taken = replace(taken, blocks=(*taken.blocks, hold.block))
    victims = {str(ident) for ident in job.victims}
    stopped: Counter[int] = Counter()
    for holder in taken.holders:
        if holder.job in victims:
            stopped[holder.priority] += holder.stops
    least = best(brute(tables.topology), taken, job.spec.request)
    if least is not None and dict(least.key1) == stopped:
        return ""
    if job.assignment is not None:
        # What jobs over several hosts cost elsewhere the coordinator knows better: the least of those it named.
        named = job.assignment.place.victims
        holders = tuple(replace(h, evictable=h.evictable and h.job in named) for h in taken.holders)
        least = best(brute(tables.topology), replace(taken, holders=holders), job.spec.request)
        if least is not None and dict(least.key1) == stopped:
            return ""
    fewest = "no plan would do" if least is None else f"the least is {dict(least.key1)}"
    return f"{job.label} stops {dict(stopped)} by priority, and {fewest}"

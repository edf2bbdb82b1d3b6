"""The core of a coordinator: `step` takes state, view and an event, and returns what follows.

Pure: no clock, no files, no messages. `now` is an argument: epoch seconds that never jump while one
leadership lasts, for leases are counted by it. `board` holds the decision's picture of the fleet, a cache
that mends itself.

The shell stores `changed`, `changed_hosts` and the numbers of the state in one transaction, and only then
sends every host in `orders` what `orders_for` returns. A report is answered the same way, also where
nothing changed.
"""

from collections.abc import Sequence

from topod.fleet import events as ev
from topod.fleet.asking import administer, cancel, change_priority, put_back, submitted
from topod.fleet.board import Board
from topod.fleet.contact import leading, reported, seen, silent, tick
from topod.fleet.depending import settle_dependencies
from topod.fleet.draft import Draft
from topod.fleet.outcome import FleetOutcome
from topod.fleet.queue import run_queue
from topod.fleet.states import FleetState
from topod.fleet.terms import DEFAULT_TERMS, Terms
from topod.fleet.view import FleetView
from topod.model.rules import NO_RULES, Rules


def step(
    state: FleetState,
    view: FleetView,
    board: Board,
    event: ev.Event,
    now: float,
    *,
    rules: Rules = NO_RULES,
    terms: Terms = DEFAULT_TERMS,
) -> FleetOutcome:
    """Return what `event` leads to at the moment `now`."""
    return step_all(state, view, board, (event,), now, rules=rules, terms=terms)


def step_all(
    state: FleetState,
    view: FleetView,
    board: Board,
    events: Sequence[ev.Event],
    now: float,
    *,
    rules: Rules = NO_RULES,
    terms: Terms = DEFAULT_TERMS,
) -> FleetOutcome:
    """Return what `events` lead to, coming one after the other at the same moment.

    The queue is run once, after the last: a burst of submits is decided by priority, not by arrival.
    """
    draft = Draft(state, view, board, now, rules=rules, terms=terms)
    for event in events:
        _apply(draft, event)
    settle_dependencies(draft)
    run_queue(draft)
    return draft.finish()


def _apply(draft: Draft, event: ev.Event) -> None:  # noqa: C901 - one case an event
    match event:
        case ev.Leading():
            leading(draft, event)
        case ev.Submitted():
            submitted(draft, event)
        case ev.CancelRequested():
            cancel(draft, event)
        case ev.RequeueRequested():
            put_back(draft, event)
        case ev.PriorityChanged():
            change_priority(draft, event)
        case ev.HostSeen():
            seen(draft, event)
        case ev.HostReported():
            reported(draft, event)
        case ev.HostSilent():
            if (view := draft.seen.get(event.host)) is not None and view.session == event.session:
                silent(draft, event.host)
        case ev.Tick():
            tick(draft)
        case _:
            administer(draft, event)

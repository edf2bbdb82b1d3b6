"""Restarting jobs at other places of this host, to make a group of GPUs whole."""

from topod.lifecycle import events as ev
from topod.lifecycle.draft import Draft


def request_moves(draft: Draft, event: ev.MovesRequested) -> None:
    """Stop the named jobs, each to be started again at its new place."""
    draft.note("host.rebalanced", None, f"{len(event.moves)} moves asked for", by=event.by)

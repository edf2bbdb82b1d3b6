"""What events lead to."""

from dataclasses import dataclass

from topod.lifecycle.effects import Effect, Notice
from topod.lifecycle.states import HostState, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The new state, and what to do once it is durable.

    `changed` lists every job that differs from before, also those that were put to rest and are no longer
    in `state.jobs`: exactly what a store must write. What a pending job waits for follows from the rest and
    is said anew by every step: a job that differs in that only is not listed. Without anything to write the
    generation stays the same.
    """

    state: HostState
    effects: tuple[Effect, ...] = ()
    notices: tuple[Notice, ...] = ()
    changed: tuple[Job, ...] = ()

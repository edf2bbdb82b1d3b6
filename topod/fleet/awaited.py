"""Hosts that a new leader knows and has not heard yet.

Whoever begins to lead hears the hosts within seconds, one after the other. A decision on the first of them
would stop jobs there while another host, still on its way, stands empty.
"""

from topod.fleet.draft import Draft
from topod.fleet.states import FleetRequest


class Awaited:
    """The hosts that are waited for in one pass over the queue."""

    def __init__(self, draft: Draft) -> None:
        """Look for them; one that is not heard for as long as makes a host silent is not waited for."""
        self.until = draft.since + draft.terms.silent_after_seconds
        self._records = [
            record
            for record in (draft.records.values() if draft.now < self.until else ())
            if record.closed is None
            and ((seen := draft.seen.get(record.name)) is None or (seen.jobs is None and not seen.silent))
        ]
        self._for: dict[tuple[str, ...], tuple[str, ...]] = {}

    def for_(self, request: FleetRequest) -> tuple[str, ...]:
        """Return those that could take a job, by name."""
        if not self._records:
            return ()
        found = self._for.get(request.select)
        if found is None:
            takes = request.selector.takes_host
            names = sorted(r.name for r in self._records if takes(r.name, r.all_labels))
            found = self._for[request.select] = tuple(names)
        return found


def awaited_text(names: tuple[str, ...]) -> str:
    """Return whom a job waits for, in words."""
    others = len(names) - 1
    more = f" and {others} other host{'' if others == 1 else 's'}" if others else ""
    return f"{names[0]}{more}, not heard since this coordinator began to lead"

"""The attempts of one job, as its story tells them: when each ran, how it ended. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from topod.protocol.views import EventView

_ENDS: Final = {
    "job.preempted": "preempted",
    "job.frozen": "frozen",
    "job.requeued": "requeued",
    "job.restarting": "failed",
    "job.succeeded": "succeeded",
    "job.failed": "failed",
    "job.cancelled": "cancelled",
    "job.lost": "lost",
    "job.returned": "given back",
}
_EXIT: Final = re.compile(r"exit code (\d+)")


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One start of a job. Times are epoch seconds; None: not yet."""

    number: int
    began: float
    restored: bool = False
    ended: float | None = None
    how: str = ""
    exit_code: int | None = None
    why: str = ""


def attempts(events: Sequence[EventView]) -> list[Attempt]:
    """Return the starts of a job, the first first. `events` are that job's, oldest first."""
    found: list[Attempt] = []
    for event in events:
        if event.name in ("job.started", "job.restored"):
            found.append(
                Attempt(number=len(found) + 1, began=event.at, restored=event.name == "job.restored")
            )
        elif found and found[-1].ended is None and event.name in _ENDS:
            last = found[-1]
            last.ended, last.how, last.why = event.at, _ENDS[event.name], _reason(event)
            last.exit_code = _exit_code(event)
    return found


def _exit_code(event: EventView) -> int | None:
    code = event.data.get("exit_code")
    if isinstance(code, int):
        return code
    told = _EXIT.search(event.text)
    return int(told[1]) if told and len(told[1]) < 4 else None


def _reason(event: EventView) -> str:
    """Return what follows the name of the job."""
    return event.text.partition(": ")[2]

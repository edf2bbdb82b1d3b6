"""Events as lines."""

import time

from topoctl.render.style import Style, printable
from topod.protocol.views import EventView

_COLORS = (
    (("job.failed", "job.lost", "job.stuck", "gpu.marked", "image.failed", "hook."), "red"),
    (("gpus.unseen", "cpus.foreign"), "red"),
    (("job.stopping", "job.preempted", "job.signalled", "host.drained", "job.unplaced"), "yellow"),
    (("gpu.noted",), "yellow"),
    (("job.started", "job.succeeded", "job.placed", "gpu.cleared", "gpus.seen", "cpus.cleared"), "green"),
)


def event_line(event: EventView, now: float, style: Style, *, wide: bool) -> str:
    """Return `13:05:12  what happened`; with `wide` also its number and name."""
    color = next((color for names, color in _COLORS if event.name.startswith(names)), None)
    text = printable(event.text or event.name)
    painted = style.paint(text, color) if color else text
    head = clock(event.at, now)
    if wide:
        head = f"{event.seq:>6}  {head}  {printable(event.name):<18}"
    return f"{head}  {painted}"


def clock(then: float, now: float) -> str:
    """Return the local time of day, with the date where it is not today's."""
    moment, today = time.localtime(then), time.localtime(now)
    day = "" if moment[:3] == today[:3] else time.strftime("%Y-%m-%d ", moment)
    return day + time.strftime("%H:%M:%S", moment)

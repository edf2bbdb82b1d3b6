"""Goes through a recording: plays, stops, steps, goes back, quicker, slower. Pure: told how time passes."""

from typing import Final

from topod.protocol.views import EventView
from topotui.recording import AnyChanges, Recording, take_in

SPEEDS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
QUIET_SECONDS: Final = 5.0
"""A longer time in which nothing happened takes so long."""


class Player:
    """Where in a recording one is, and the picture there."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.picture = self._recording.nothing()
        self.at = 0
        """So many answers are in the picture."""
        self.playing = True
        self.speed = 1.0
        self._left = 0.0
        """Seconds of the recording until the next answer."""
        self.step()

    @property
    def count(self) -> int:
        """How many answers there are."""
        return len(self._recording.changes)

    @property
    def ended(self) -> bool:
        """Whether all of it was shown."""
        return self.at >= self.count

    def pass_time(self, seconds: float) -> bool:
        """Let time pass; return whether the picture changed."""
        if not self.playing or self.ended:
            return False
        self._left -= seconds * self.speed
        before = self.at
        while self._left <= 0 and not self.ended:
            left = self._left
            self.step()
            self._left += left
        self.playing = not self.ended
        return self.at != before

    def step(self) -> None:
        """Take in the next answer."""
        if self.ended:
            return
        changes = self._recording.changes[self.at]
        if self.at in self._recording.parts:
            self.picture = self._recording.nothing()
        take_in(self.picture, changes)
        self.at += 1
        self._left = self._gap(changes)

    def _gap(self, changes: AnyChanges) -> float:
        if self.ended:
            return 0.0
        # A clock may have been set back, and a part may have been recorded days later.
        return min(QUIET_SECONDS, max(0.0, self._recording.changes[self.at].now - changes.now))

    def go(self, at: int) -> None:
        """Go to where `at` answers are in the picture, at least one."""
        at = max(1, min(at, self.count))
        if at < self.at:
            # The part that it lies in says everything anew.
            self.at = max((part for part in self._recording.parts if part < at), default=0)
            self.picture = self._recording.nothing()
        while self.at < at:
            self.step()

    def go_to_preemption(self, *, forward: bool) -> bool:
        """Go to where the next preemption begins, or the one before; return whether there is one."""
        begins = self._preemptions()
        found = (
            next((at for at in begins if at > self.at), None)
            if forward
            else next((at for at in reversed(begins) if at < self.at), None)
        )
        if found is not None:
            self.go(found)
        return found is not None

    def _preemptions(self) -> list[int]:
        """Return after how many answers a new preemption is known."""
        return [
            at
            for at, changes in enumerate(self._recording.changes, 1)
            if at - 1 not in self._recording.parts
            for event in changes.events
            if _stops_somebody(event)
        ]

    def change_speed(self, by: int) -> None:
        """Play quicker, or slower, by so many steps."""
        at = SPEEDS.index(self.speed) + by
        self.speed = SPEEDS[max(0, min(at, len(SPEEDS) - 1))]


def _stops_somebody(event: EventView) -> bool:
    if event.name == "job.assigned":  # by a coordinator
        return bool(event.data.get("victims"))
    plan = event.data.get("plan")
    return event.name == "job.placed" and isinstance(plan, dict) and bool(plan.get("victims"))

"""The key that records: to which file, and what becomes of it."""

import time
from pathlib import Path

from topod.errors import TopodError
from topotui.dialogs import Ask
from topotui.live import LiveScreen
from topotui.recording import AnyChanges, AnyPicture, Recorder, name_of


class RecordKeys(LiveScreen):
    """Writes what is followed into a file, from the moment somebody wants it."""

    picture: AnyPicture
    recorder: Recorder | None = None
    not_recorded = ""
    """Why a recording ended that nobody ended."""

    def say(self) -> None:
        """Say in the line on top how things are."""
        raise NotImplementedError

    def why_no_recording(self) -> str:
        """Return why nothing may be recorded from here; empty: it may."""
        if self.app.is_web:
            return "a recording is a file of the server: topoctl top --record FILE, in a terminal there"
        return self.refusal() if self.read_only else ""

    async def action_record(self) -> None:
        if self.recorder is not None:
            path = self.recorder.path
            self._stop_recording()
            self.notify(f"recorded: topoctl top --replay {path}")
        elif why := self.why_no_recording():
            self.notify(why, severity="warning")
        elif (name := name_of(self.picture)) is not None:
            stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(self.picture.now))
            await self.app.push_screen(
                Ask("Record to which file?", f"{name or 'fleet'}-{stamp}.jsonl"), self._start_recording
            )

    def _start_recording(self, name: str | None) -> None:
        if not name or self.why_no_recording():
            return
        self.not_recorded = ""
        try:
            self.recorder = Recorder(Path(name).expanduser().absolute(), fleet=name_of(self.picture) == "")
        except TopodError as error:
            self.notify(error.message, severity="error")
            return
        self.write(None)
        self.say()

    def write(self, changes: AnyChanges | None) -> None:
        """Record an answer; None: all that is known, where nothing is recorded yet."""
        if self.recorder is None:
            return
        try:
            self.recorder.take(changes, self.picture)
        except TopodError as error:
            at = time.strftime("%H:%M:%S")
            self.not_recorded = f"✗ not recorded since {at}: {error.message}"
            self._stop_recording()
            self.notify(f"{error.message}; nothing more is recorded", severity="error", timeout=30)

    def _stop_recording(self) -> None:
        if self.recorder is not None:
            self.recorder.close()
            self.recorder = None
        self.say()

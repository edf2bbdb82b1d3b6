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

    def say(self) -> None:
        """Say in the line on top how things are."""
        raise NotImplementedError

    async def action_record(self) -> None:
        if self.recorder is not None:
            path = self.recorder.path
            self._stop_recording()
            self.notify(f"recorded: topoctl top --replay {path}")
        elif (name := name_of(self.picture)) is not None:
            stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(self.picture.now))
            await self.app.push_screen(
                Ask("Record to which file?", f"{name or 'fleet'}-{stamp}.jsonl"), self._start_recording
            )

    def _start_recording(self, name: str | None) -> None:
        if not name:
            return
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
            self._stop_recording()
            self.notify(f"{error.message}; nothing more is recorded", severity="error", timeout=30)

    def _stop_recording(self) -> None:
        if self.recorder is not None:
            self.recorder.close()
            self.recorder = None
        self.say()

"""What the screens of a host and of a fleet share: questions before anything is done; the output of a job."""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

from textual import events, work
from textual.app import App
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import TabbedContent

from topod.errors import DaemonUnavailableError, TopodError
from topod.model.request import PRIORITIES
from topod.protocol.client import Client
from topod.protocol.replies import Done, LogChunk
from topod.protocol.requests import AnyRequest, ReadLog
from topotui.dialogs import Confirm
from topotui.feed import RETRY_SECONDS
from topotui.logview import LogView

LOG_SECONDS: Final = 10.0
OLD: Final = "no answer, trying again; this is how it was"
CHANGING: Final = frozenset({"cancel", "requeue", "priority", "drain", "cordon", "resume"})
"""The actions that change something; a screen that only looks does not offer them."""


def only_looks(app: App[object]) -> str:
    """Return why nothing is changed from a screen that only looks."""
    if app.is_web:
        return "this page only looks; one that may change things: topoctl web --allow-changes"
    return "started with --read-only: nothing is changed from here"


class LiveScreen(Screen[None]):
    """Shows somebody who is followed, and asks them to do things."""

    def __init__(self, connect: Callable[[], Client], *, read_only: bool = False) -> None:
        super().__init__()
        self.read_only = read_only
        self.away = ""
        """Why what is followed does not answer; empty: it does."""
        self._connect = connect

    def may(self) -> bool:
        """Say whether anything may be changed from here; else tell why not."""
        if self.read_only:
            self.notify(self.refusal(), severity="warning")
        return not self.read_only

    def refusal(self) -> str:
        """Return why nothing is changed from here."""
        return only_looks(self.app)

    def why_not(self, action: str) -> str:
        """Return why an action is not offered now; empty: it is, or there is nothing to say."""
        return self.refusal() if self.read_only and action in CHANGING else ""

    def on_other_tabs(self, action: str, tabs: Mapping[str, Collection[str]]) -> str:
        """Return on which tabs an action means something, where it does not on this one."""
        there, tab = tabs.get(action), self.query_one(TabbedContent)
        if there is None or tab.active in there:
            return ""
        return f"that is for the tab {' or '.join(str(tab.get_tab(name).label) for name in there)}"

    def on_key(self, event: events.Key) -> None:
        """Say why a key does nothing."""
        for one in self.BINDINGS:
            if not isinstance(one, Binding) or event.key not in one.key.split(","):
                continue
            action = one.action.partition("(")[0]
            if self.check_action(action, ()) is False and (why := self.why_not(action)):
                self.notify(why, severity="warning")

    async def ask_first(self, question: Confirm, request: AnyRequest) -> None:
        """Have it done once the question is answered with yes."""

        def answered(yes: bool | None) -> None:
            if yes:
                self.do(request)

        await self.app.push_screen(question, answered)

    def priority_of(self, text: str) -> int | None:
        """Return the priority that a text means; where it means none, tell so."""
        number = PRIORITIES.get(text, int(text) if text.isdecimal() else None)
        if number is None:
            self.notify(f"{text} is no priority", severity="error")
        return number

    @work(thread=True)
    def do(self, request: AnyRequest) -> None:
        """Have something done, and tell what came of it where that is not seen."""
        try:
            with self._connect() as client:
                reply = client.ask(request, 20.0)
        except TopodError as error:
            hint = f"; {error.hint}" if error.hint else ""
            self.app.call_from_thread(self.notify, f"{error.message}{hint}", severity="error")
        else:
            if isinstance(reply, Done) and reply.text:
                self.app.call_from_thread(self.notify, reply.text)

    async def show_output(self, job: int, called: str) -> None:
        """Show the output of a job as it comes."""
        view = LogView(called)
        await self.app.push_screen(view)
        self._follow_log(view, job)

    @work(thread=True)
    def _follow_log(self, view: LogView, job: int) -> None:
        offset: int | None = 0
        while offset is not None and not view.closed:
            try:
                with self._connect() as client:
                    while offset is not None and not view.closed:
                        offset = self._more_of_log(client, view, job, offset)
            except DaemonUnavailableError as error:
                self.app.call_from_thread(view.away, error.message)
                time.sleep(RETRY_SECONDS)
            except TopodError as error:
                self.app.call_from_thread(self.notify, error.message, severity="error")
                return

    def _more_of_log(self, client: Client, view: LogView, job: int, offset: int) -> int | None:
        """Show what comes behind an offset within a second; return the next, None: there is no more."""
        reply = client.ask(ReadLog(job=job, offset=offset, wait=1.0), LOG_SECONDS)
        if not isinstance(reply, LogChunk):
            return None
        self.app.call_from_thread(view.away, "")
        if reply.data:
            self.app.call_from_thread(view.add, reply.data.decode(errors="replace"))
        if reply.ended:
            self.app.call_from_thread(view.end)
        return None if reply.ended else reply.next_offset

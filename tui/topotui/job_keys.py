"""What keys do to the job under the cursor: look at it, stop it, queue it again, change its priority."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from textual import work

from topoctl.session import expect, one_job
from topod.errors import TopodError
from topod.protocol.replies import Events, Jobs
from topod.protocol.requests import AnyRequest, Cancel, GetJob, ReadEvents, Requeue, SetPriority
from topod.protocol.views import EventView, JobLine, JobView
from topotui import words
from topotui.dialogs import Ask, Confirm
from topotui.jobscreen import JobScreen
from topotui.live import LiveScreen
from topotui.picture import ENDED

EVENTS_MAX: Final = 2000
Say = Callable[[JobView, Sequence[JobLine]], str]
"""What is about to be done to a job, in words, given who waits."""


class JobKeys(LiveScreen):
    """Asks topod about a job before it says what a key will do to it. The jobs has who derives from it."""

    elsewhere = ""
    """Where jobs are changed, if not here."""

    def chosen(self) -> JobLine | None:
        """Return the job under the cursor."""
        raise NotImplementedError

    def known(self, job: int) -> tuple[JobLine | None, Sequence[EventView], float]:
        """Return what is known of a job without asking: itself, its story, and the time."""
        raise NotImplementedError

    def waiting(self) -> Sequence[JobLine]:
        """Return the queue, who goes first first."""
        raise NotImplementedError

    def _of_chosen(self) -> JobLine | None:
        job = self.chosen()
        if job is None:
            self.notify("no job is under the cursor: choose one on the tab of jobs", severity="warning")
        return job

    # --- keys -----------------------------------------------------------------------------------------------

    async def action_details(self) -> None:
        if (job := self._of_chosen()) is not None:
            await self.open_job(job.id)

    async def open_job(self, job: int) -> None:
        """Show all about a job; a key pressed there is done here."""
        view = JobScreen(job, read_only=self.read_only)
        await self.app.push_screen(view, partial(self._then, job))
        view.show(*self.known(job))
        view.tell(self.away)
        self.load(view)

    async def _then(self, job: int, key: str | None) -> None:
        line, *_ = self.known(job)
        if line is None or key is None:
            return
        match key:
            case "log":
                await self._show_log(line)
            case "cancel":
                self._cancel(line)
            case "requeue":
                self._requeue(line)
            case "priority":
                await self._prioritise(line)
            case _:
                pass

    async def action_log(self) -> None:
        if (job := self._of_chosen()) is not None:
            await self._show_log(job)

    def action_cancel(self) -> None:
        if (job := self._of_chosen()) is not None:
            self._cancel(job)

    def action_requeue(self) -> None:
        if (job := self._of_chosen()) is not None:
            self._requeue(job)

    async def action_priority(self) -> None:
        if (job := self._of_chosen()) is not None:
            await self._prioritise(job)

    def _here(self) -> bool:
        if self.elsewhere:
            self.notify(self.elsewhere, severity="warning")
        return not self.elsewhere

    def _changeable(self, job: JobLine) -> bool:
        if job.state in ENDED:
            self.notify(f"{words.name(job)} has ended: {job.state}", severity="warning")
        return job.state not in ENDED and self._here() and self.may()

    async def _show_log(self, job: JobLine) -> None:
        if self._here():
            await self.show_output(job.id, words.name(job))

    def _cancel(self, job: JobLine) -> None:
        if self._changeable(job):
            self.confirm(job.id, words.cancel, Cancel(jobs=[job.id]))

    def _requeue(self, job: JobLine) -> None:
        if self._changeable(job):
            self.confirm(job.id, words.requeue, Requeue(jobs=[job.id]), words.no_requeue)

    async def _prioritise(self, job: JobLine) -> None:
        if self._changeable(job):
            question = f"Priority of {words.name(job)}, now {job.priority}: low, normal, high or a number"
            await self.app.push_screen(Ask(question), partial(self._with_priority, job))

    def _with_priority(self, job: JobLine, text: str | None) -> None:
        number = self.priority_of(text) if text else None
        if number is not None:

            def told(view: JobView, queue: Sequence[JobLine]) -> str:
                return words.prioritise(view, number, queue)

            self.confirm(job.id, told, SetPriority(job=job.id, priority=number))

    # --- asking ---------------------------------------------------------------------------------------------

    @work(thread=True)
    def confirm(
        self, job: int, say: Say, request: AnyRequest, refuse: Callable[[JobView], str] | None = None
    ) -> None:
        """Ask topod about the job, then the user with what will happen, then have it done.

        `refuse` says why there is nothing to do; empty: there is.
        """
        try:
            with self._connect() as client:
                view = one_job(expect(client.ask(GetJob(job=job), 20.0), Jobs))
        except TopodError as error:
            self.app.call_from_thread(self.notify, error.message, severity="error")
            return
        if refuse is not None and (why := refuse(view)):
            self.app.call_from_thread(self.notify, why, severity="warning")
        else:
            self.app.call_from_thread(self._confirm, view, say, request)

    def _confirm(self, view: JobView, say: Say, request: AnyRequest) -> None:
        if self.is_current:  # else another question was quicker
            self.call_later(self.ask_first, Confirm(say(view, self.waiting())), request)

    def load(self, view: JobScreen) -> None:
        """Fill the screen of a job with what only topod knows: its plan, its request, its whole story."""
        self._load(view)

    @work(thread=True)
    def _load(self, view: JobScreen) -> None:
        try:
            with self._connect() as client:
                job = one_job(expect(client.ask(GetJob(job=view.job), 20.0), Jobs))
                request = ReadEvents(since=0, limit=EVENTS_MAX, job=view.job)
                events = expect(client.ask(request, 20.0), Events).events
        except TopodError as error:
            self.app.call_from_thread(self.notify, error.message, severity="error")
            return
        self.app.call_from_thread(view.fill, job, events)

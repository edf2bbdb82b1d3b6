"""The one task that owns the state of the fleet.

Rule: persist before act. Events are stepped, their outcome made durable, and only then state and view
advance, the story is published, the askers answered and the hosts told. What has gathered meanwhile shares
the next step and its transaction. An outcome that cannot be stored has not happened: who asked is refused,
and what hosts reported is dropped, for they say it again until they are told that it was seen.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from topod.coordinator.inbox import Inbox
from topod.coordinator.storage import FleetStore
from topod.coordinator.witness import Stepped
from topod.errors import ConflictError, DaemonUnavailableError, NotLeaderError, StoreError
from topod.fleet import events as ev
from topod.fleet.asking import why_not
from topod.fleet.board import Board
from topod.fleet.machine import step_all
from topod.fleet.outcome import FleetOutcome
from topod.fleet.states import FleetJob, FleetJobId, FleetState
from topod.fleet.terms import DEFAULT_TERMS, Terms
from topod.fleet.view import FleetView
from topod.model.rules import NO_RULES, Rules
from topod.ports import Clock
from topod.protocol.views import EventView
from topod.shell.dependencies import settled
from topod.shell.faults import checkpoint
from topod.shell.health import Health
from topod.shell.letters import Letter, take
from topod.shell.logs import of_event
from topod.shell.supervision import Pulse

MAX_QUEUED: Final = 8192
TICK_SECONDS: Final = 1.0
HEARTBEAT_PATIENCE: Final = 0.1
REPORT_PATIENCE: Final = 0.02
"""So long (seconds) what a host says waits for company: a thousand hosts talk all the time."""
PAUSE_SECONDS: Final = 0.02
"""So long a pause after a step is at most, else as long as the step took: what comes meanwhile shares one."""
LOOK_SECONDS: Final = 10.0
"""At least so often the store is looked at when nothing is written to it."""
FAILED: Final = "the coordinator failed at this"

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What a request led to: the state after it, durable, and for a submit its job."""

    state: FleetState
    job: FleetJobId | None = None


_Letter = Letter[ev.Event, Decided]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What some letters led to, durable: the outcome, its story, and the job of each submit."""

    outcome: FleetOutcome
    events: tuple[EventView, ...]
    jobs: tuple[FleetJobId | None, ...]
    step: Stepped


class Mailbox:
    """Steps what is in it, a bunch at a time. Used from the event loop only."""

    def __init__(
        self,
        state: FleetState,
        store: FleetStore,
        board: Board,
        *,
        clock: Clock,
        health: Health,
        rules: Rules = NO_RULES,
        terms: Terms = DEFAULT_TERMS,
    ) -> None:
        """`clock` must never jump: leases are counted by it."""
        self.state = state
        self.view = FleetView()
        self.board: Final = board
        self._store = store
        self._clock = clock
        self._health = health
        self.rules = rules
        """Those in force; see `obey`."""
        self.pulse: Final = Pulse()
        self._terms = terms
        self._tell: Callable[[FleetOutcome, Sequence[ev.Event]], None] = _ignore
        self._publish: Callable[[EventView], None] = _ignore
        self._witness: Callable[[Stepped], None] = _ignore
        self._inbox: Inbox[_Letter] = Inbox(MAX_QUEUED)
        self._reports: dict[str, _Letter] = {}
        """The report of each host that waits."""
        self._tick_at = 0.0
        self._look_at = 0.0
        self._advanced = asyncio.Event()
        self._busy = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        # One thread: commits happen in the order of the events.
        self._thread = ThreadPoolExecutor(1, "store")

    async def lead(
        self,
        *,
        tell: Callable[[FleetOutcome, Sequence[ev.Event]], None],
        publish: Callable[[EventView], None],
        witness: Callable[[Stepped], None] | None = None,
    ) -> None:
        """Begin a leadership, durably, and then to work. `tell` sends hosts what an outcome has for them.

        `witness` is shown each step, when all else is done. Raises `StoreError`.
        """
        self._tell, self._publish, self._witness = tell, publish, witness or _ignore
        leading: _Letter = Letter(event=ev.Leading(epoch=self.state.epoch + 1))
        self._act([leading], await self._make([leading]))
        self._task = asyncio.create_task(self._run(), name="mailbox")

    async def stop(self) -> None:
        """Finish the commit in progress, then stop; what is queued is refused."""
        self._stopped = True
        async with self._busy:
            if self._task is not None:
                self._task.cancel()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._advanced.set()
        for letter in self._inbox.close():
            letter.fail(_over())
        self._thread.shutdown(wait=True)

    def obey(self, rules: Rules) -> None:
        """Go by other rules from the next step on, and see every host by them."""
        self.rules = rules
        self.board.outdate()

    def post(self, event: ev.Event) -> None:
        """Report what a host said or did. May be dropped: the host says it again."""
        match event:
            case ev.HostReported():
                self._report(event)
            case ev.HostSilent():
                self._reports.pop(event.host, None)
                self._inbox.put(Letter(event=event))
            case _:
                self._inbox.put(Letter(event=event))

    def _report(self, report: ev.HostReported) -> None:
        """Take in a report; of several that wait the newest tells all."""
        waits = self._reports.get(report.host)
        before = None if waits is None else waits.event
        if waits is None or not isinstance(before, ev.HostReported) or before.session != report.session:
            letter: _Letter = Letter(event=report)
            patience = HEARTBEAT_PATIENCE if report.snapshot is None else REPORT_PATIENCE
            if self._inbox.put(letter, patience=patience):
                self._reports[report.host] = letter
        elif report.snapshot is not None:
            waits.event = report
            self._inbox.expedite(REPORT_PATIENCE)
        elif before.snapshot is None:
            waits.event = report

    async def ask(self, event: ev.Event, *, token: str = "") -> Decided:
        """Carry out a request and return what it led to, once it is durable.

        A submit with a `token` that was used before leads to the job of that time. Raises `ConflictError` for
        what cannot be, `StoreError` when the outcome cannot be made durable: then nothing happened.
        """
        reply: asyncio.Future[Decided] = asyncio.get_running_loop().create_future()
        if self._stopped:
            raise _over()
        if not self._inbox.put(Letter(event=event, token=token, reply=reply)):
            raise DaemonUnavailableError("the coordinator is busy with too many requests", hint="try again")
        return await reply

    async def until(self, done: Callable[[FleetState], bool], seconds: float) -> None:
        """Return when `done` holds of the state, or after that many seconds.

        Raises `NotLeaderError` when this leadership ends.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not done(self.state):
                    if self._stopped:
                        raise _over()
                    await self._advanced.wait()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.pulse.beat()
            letters = await self._next()
            begun = loop.time()
            try:
                async with self._busy:
                    await self._handle(letters)
                    if loop.time() >= self._look_at:
                        await self._look()
            except asyncio.CancelledError:
                for letter in letters:
                    letter.fail(_over())
                raise
            await asyncio.sleep(min(PAUSE_SECONDS, loop.time() - begun))

    async def _next(self) -> list[_Letter]:
        """Return what to look at next; a tick comes first when it is due."""
        loop = asyncio.get_running_loop()
        while True:
            if loop.time() >= self._tick_at:
                self._tick_at = loop.time() + TICK_SECONDS
                return [Letter(event=ev.Tick())]
            await self._inbox.wait(self._tick_at)
            if self._inbox.letters:
                taken = take(self._inbox.letters)
                for letter in taken:
                    if isinstance(letter.event, ev.HostReported | ev.HostSeen):
                        self._reports.pop(letter.event.host, None)
                return taken

    async def _look(self) -> None:
        """See whether the store can keep anything: nobody else would say so before the next request."""
        self._look_at = asyncio.get_running_loop().time() + LOOK_SECONDS
        try:
            await self._stored(partial(self._store.check, thorough=self._health.has("store")))
        except StoreError as error:
            self._not_stored((), error)
        else:
            self._health.well("store")

    async def _handle(self, letters: Sequence[_Letter]) -> None:
        letters = [letter for letter in letters if not self._refused(letter)]
        if not letters:
            return
        try:
            made = await self._make(letters)
        except StoreError as error:
            self._not_stored(letters, error)
        except Exception as error:  # noqa: BLE001 - `failed` tells the log
            if len(letters) == 1:
                letters[0].failed(error, log, FAILED)
                return
            # Nothing has happened, and a defect costs one answer only.
            for letter in letters:
                await self._handle([letter])
        else:
            self._act(letters, made)

    def _refused(self, letter: _Letter) -> bool:
        """Answer a request that a step would ignore."""
        if letter.reply is None or letter.reply.done():
            return letter.reply is not None
        reason = why_not(self.state, self.view, letter.event, self.rules)
        if reason is not None:
            letter.fail(ConflictError(reason))
        return reason is not None

    def _not_stored(self, letters: Sequence[_Letter], error: StoreError) -> None:
        text = f"{error.message}; nothing new is accepted until it works again"
        self._health.trouble("store", f"{text} ({error.hint})" if error.hint else text)
        for letter in letters:
            letter.fail(error)

    async def _make(self, letters: Sequence[_Letter]) -> _Made:
        """Step the letters and make the outcome durable. If that fails, it raises and nothing has changed."""
        base, now = self.state, self._clock.now()
        tokens = [letter.token for letter in letters if letter.token]
        known = await self._stored(partial(self._store.submitted, tokens)) if tokens else {}
        fresh = [letter for letter in letters if letter.token not in known]
        coming = base.next_job
        jobs: list[FleetJobId | None] = []
        of_tokens: dict[str, FleetJobId] = {}
        for letter in letters:
            if letter.token in known:
                jobs.append(known[letter.token])
            elif isinstance(letter.event, ev.Submitted):
                jobs.append(coming)
                if letter.token:
                    of_tokens[letter.token] = coming
                coming = FleetJobId(coming + letter.event.count)
            else:
                jobs.append(None)
        happened = [letter.event for letter in fresh]
        if any(isinstance(event, ev.Submitted) and event.request.spec.after for event in happened):
            happened = await self._stored(partial(_with_settled, self._store, base, happened))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        outcome = step_all(base, self.view, self.board, happened, now, rules=self.rules, terms=self._terms)
        step = Stepped(before=base, outcome=outcome, seconds=loop.time() - begun)
        events: tuple[EventView, ...] = ()
        if outcome.state.generation != base.generation:
            checkpoint("before commit")
            commit = partial(self._store.commit, base, outcome, now=now, tokens=of_tokens)
            events = await self._stored(commit)
            checkpoint("after commit")
            self._health.well("store")
            self._look_at = loop.time() + LOOK_SECONDS
        return _Made(outcome=outcome, events=events, jobs=tuple(jobs), step=step)

    def _act(self, letters: Sequence[_Letter], made: _Made) -> None:
        """Advance to what is durable now: tell it, have the hosts told, and answer."""
        self.state, self.view = made.outcome.state, made.outcome.view
        self._advanced.set()
        self._advanced = asyncio.Event()
        for event in made.events:
            if event.name != "job.assigned":  # the line of the decision says that, and more
                log.info(event.name, extra=of_event(event))
            self._publish(event)
        try:
            self._tell(made.outcome, [letter.event for letter in letters])
        except Exception:
            # They are told with their next report: what they are told follows from the state.
            log.exception("orders.failed")
        for letter, job in zip(letters, made.jobs, strict=True):
            letter.answer(Decided(state=self.state, job=job))
        self._witness(made.step)

    async def _stored(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _with_settled(store: FleetStore, base: FleetState, events: Sequence[ev.Event]) -> list[ev.Event]:
    """Return the events, each submit with how the jobs that it waits for ended, of those put to rest."""

    def stored(ident: int) -> FleetJob | None:
        return base.jobs.get(FleetJobId(ident)) or store.job(ident)

    return [
        replace(event, settled=tuple(settled(event.request.spec.after, base.jobs, stored)))
        if isinstance(event, ev.Submitted) and event.request.spec.after
        else event
        for event in events
    ]


def _ignore(*_: object) -> None:
    """Stand in until the mailbox leads."""


def _over() -> NotLeaderError:
    return NotLeaderError("this coordinator does not lead any more; nothing was done", hint="try again")

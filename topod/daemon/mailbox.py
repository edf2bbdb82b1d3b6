"""The one task that owns the state of the host.

Rule: persist before act. An event is stepped, its outcome made durable, and only then the state advances, the
story is published, the asker answered and the effects carried out. An outcome that cannot be stored has not
happened: a request is refused, and what the world reported is kept and tried again.
"""

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from topod.daemon.faults import checkpoint
from topod.daemon.health import Health
from topod.daemon.logs import Key
from topod.daemon.storage import Store
from topod.errors import StoreError, TopodError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.deadlines import next_deadline
from topod.lifecycle.effects import Effect
from topod.lifecycle.events import Event, Recovered, Submitted, Tick
from topod.lifecycle.machine import step
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import HostState
from topod.model.job import JobId
from topod.model.rules import NO_RULES, Rules
from topod.ports import Clock
from topod.protocol.views import EventView

MAX_QUEUED: Final = 4096
TICK_SECONDS: Final = 5.0
"""At least so often time is looked at, whatever the deadlines say."""
TICK_SECONDS_MIN: Final = 0.05
RETRY_SECONDS: Final = (0.2, 5.0)
"""First and longest pause before an outcome that could not be stored is tried again."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class InternalError(TopodError):
    """The daemon has a defect; its log has the details under the number given."""

    code = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What a request led to: the state after it, durable, and for a submit the job's id."""

    state: HostState
    job: JobId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Letter:
    event: Event
    token: str = ""
    reply: "asyncio.Future[Decided] | None" = None


class Mailbox:
    """Steps one event at a time. Used from the event loop only."""

    def __init__(
        self,
        tables: TopologyTables,
        state: HostState,
        store: Store,
        *,
        clock: Clock,
        health: Health,
        rules: Rules = NO_RULES,
    ) -> None:
        self.state = state
        self._rules = rules
        self._tables = tables
        self._store = store
        self._clock = clock
        self._health = health
        self._carry_out: Callable[[tuple[Effect, ...]], None] = _ignore
        self._publish: Callable[[EventView], None] = _ignore
        self._queue: asyncio.Queue[_Letter] = asyncio.Queue(MAX_QUEUED)
        self._kept: deque[_Letter] = deque()
        self._retry_at = 0.0
        self._pause = RETRY_SECONDS[0]
        self._tick_at = 0.0
        self._recovered = False
        self._advanced = asyncio.Event()
        self._busy = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        # One thread: commits happen in the order of the events.
        self._thread = ThreadPoolExecutor(1, "store")

    def start(
        self,
        *,
        carry_out: Callable[[tuple[Effect, ...]], None],
        publish: Callable[[EventView], None],
    ) -> None:
        """Begin to work through the events; effects go to `carry_out`, the host's story to `publish`."""
        self._carry_out, self._publish = carry_out, publish
        self._task = asyncio.create_task(self._run(), name="mailbox")

    async def stop(self) -> None:
        """Finish the commit in progress, then stop; what is queued is not looked at any more."""
        async with self._busy:
            if self._task is not None:
                self._task.cancel()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=True)

    @property
    def recovered(self) -> bool:
        """Whether the runtime has been looked at since the start; before that no effect is carried out."""
        return self._recovered

    async def post(self, event: Event) -> None:
        """Report what the world did. Never lost: kept until its outcome is durable."""
        await self._queue.put(_Letter(event=event))

    async def ask(self, event: Event, *, token: str = "") -> Decided:
        """Carry out a request and return what it led to, once it is durable.

        A submit with a `token` that was used before leads to the job of that time. Raises `StoreError` when
        the outcome cannot be made durable: then nothing happened.
        """
        reply: asyncio.Future[Decided] = asyncio.get_running_loop().create_future()
        await self._queue.put(_Letter(event=event, token=token, reply=reply))
        return await reply

    async def until(self, done: Callable[[HostState], bool], seconds: float) -> None:
        """Return when `done` holds of the state, or after that many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not done(self.state):
                    await self._advanced.wait()

    async def _run(self) -> None:
        while True:
            letter, again = await self._next()
            async with self._busy:
                if self._kept and letter.reply is None and not again:
                    self._kept.append(letter)
                else:
                    await self._handle(letter)
            self._plan_tick()

    async def _next(self) -> tuple[_Letter, bool]:
        """Return what to look at next, and whether that is a second try."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            if self._kept and now >= self._retry_at:
                return self._kept.popleft(), True
            # Before the runtime was looked at, a deadline may be one of a signal that was never sent.
            ticking = self._recovered and not self._kept
            if ticking and now >= self._tick_at:
                return _Letter(event=Tick()), False
            due = self._retry_at if self._kept else self._tick_at if ticking else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    return await self._queue.get(), False

    def _plan_tick(self) -> None:
        now = self._clock.now()
        deadline = next_deadline(self.state, now, self._rules)
        wait = TICK_SECONDS if deadline is None else min(TICK_SECONDS, deadline - now)
        self._tick_at = max(asyncio.get_running_loop().time() + max(TICK_SECONDS_MIN, wait), self._retry_at)

    async def _handle(self, letter: _Letter) -> None:
        try:
            decided = await self._process(letter)
        except StoreError as error:
            self._not_stored(letter, error)
        except TopodError as error:
            _fail(letter, error)
        except Exception as error:
            problem = uuid.uuid4().hex[:8]
            extra = {Key.EVENT: type(letter.event).__name__, Key.PROBLEM: problem}
            log.exception("event.failed", extra=extra)
            text = f"topod failed at this request by a defect of its own; its log has it as {problem}"
            _fail(letter, InternalError(f"{text} ({type(error).__name__})"))
        else:
            if letter.reply is not None and not letter.reply.done():
                letter.reply.set_result(decided)

    def _not_stored(self, letter: _Letter, error: StoreError) -> None:
        self._health.trouble("store", f"{error.message}; nothing new is accepted until it works again")
        if letter.reply is not None:
            _fail(letter, error)
            return
        if not isinstance(letter.event, Tick):
            self._kept.appendleft(letter)
        self._retry_at = asyncio.get_running_loop().time() + self._pause
        self._pause = min(RETRY_SECONDS[1], self._pause * 2)

    async def _process(self, letter: _Letter) -> Decided:
        base = self.state
        if letter.token:
            known = await self._stored(partial(self._store.submitted, letter.token))
            if known is not None:
                return Decided(state=base, job=known)
        now = self._clock.now()
        outcome = step(self._tables, base, letter.event, now, self._rules)
        job = base.next_job if isinstance(letter.event, Submitted) else None
        events: tuple[EventView, ...] = ()
        if outcome.state is not base or outcome.changed or outcome.notices:
            token = (letter.token, job) if letter.token and job is not None else None
            checkpoint("before commit")
            commit = partial(self._store.commit, base, outcome, now=now, token=token)
            events = await self._stored(commit)
            checkpoint("after commit")
            self._health.well("store")
            self._pause = RETRY_SECONDS[0]
            self._retry_at = 0.0
        self._advance(outcome, events)
        if isinstance(letter.event, Recovered):
            self._recovered = True
        # Before that, effects are not carried out: recovery gives every outstanding one.
        if self._recovered:
            self._carry_out(outcome.effects)
        return Decided(state=outcome.state, job=job)

    def _advance(self, outcome: Outcome, events: tuple[EventView, ...]) -> None:
        if outcome.state is not self.state:
            self.state = outcome.state
            self._advanced.set()
            self._advanced = asyncio.Event()
        for event in events:
            extra = {Key.JOB: event.job, Key.TEXT: event.text, Key.SEQ: event.seq, Key.DATA: event.data}
            log.info(event.name, extra={key: value for key, value in extra.items() if value is not None})
            self._publish(event)

    async def _stored(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _ignore(_: object) -> None:
    """Stand in until the mailbox is started."""


def _fail(letter: _Letter, error: TopodError) -> None:
    if letter.reply is not None and not letter.reply.done():
        letter.reply.set_exception(error)

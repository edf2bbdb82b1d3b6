"""The one task that owns the state of the host.

Rule: persist before act. Events are stepped, their outcome made durable, and only then the state advances,
the story is published, the askers answered and the effects carried out. What has gathered while the last
commit was made is stepped together and shares one transaction. An outcome that cannot be stored has not
happened: a request is refused, and what the world reported is kept and tried again.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from topod.daemon.pacing import Pacer
from topod.daemon.storage import Store
from topod.daemon.witness import Stepped
from topod.errors import StoreError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.deadlines import next_deadline
from topod.lifecycle.effects import Effect
from topod.lifecycle.events import ClockSet, Event, Recovered, Submitted, Tick
from topod.lifecycle.machine import step_all
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import HostState, Job
from topod.model.job import JobId
from topod.model.rules import NO_RULES, Rules
from topod.ports import Clock
from topod.protocol.views import EventView
from topod.shell.dependencies import settled
from topod.shell.faults import checkpoint
from topod.shell.health import Health
from topod.shell.letters import MAX_TOGETHER, Letter, take
from topod.shell.logs import of_event
from topod.shell.supervision import Pulse

MAX_QUEUED: Final = 4096
TICK_SECONDS: Final = 5.0
"""At least so often time is looked at, whatever the deadlines say."""
TICK_SECONDS_MIN: Final = 0.05
CLOCK_SLACK_SECONDS: Final = 1.0
"""The wall clock was set when it leaves the steady one by more than this between two events."""
RETRY_SECONDS: Final = (0.2, 5.0)
"""First and longest pause before an outcome that could not be stored is tried again."""
LOOK_SECONDS: Final = 10.0
"""At least so often the store is looked at when nothing is written to it."""
FAILED: Final = "topod failed at this request"

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What a request led to: the state after it, durable, and for a submit the jobs it made.

    A submit whose token was used before tells the first job of that time only.
    """

    state: HostState
    jobs: tuple[JobId, ...] = ()

    @property
    def job(self) -> JobId | None:
        """The first of the jobs."""
        return self.jobs[0] if self.jobs else None


_Letter = Letter[Event, Decided]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What some letters led to, durable: the outcome, its story, and the jobs of each letter."""

    outcome: Outcome
    events: tuple[EventView, ...]
    jobs: tuple[tuple[JobId, ...], ...]
    step: Stepped


class Mailbox:
    """Steps what is in it, a bunch at a time. Used from the event loop only."""

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
        self.rules = rules  # those in force; others count from the next step on
        self.pulse: Final = Pulse()
        self._tables = tables
        self._store = store
        self._clock = clock
        self._health = health
        self._carry_out: Callable[[tuple[Effect, ...]], None] = _ignore
        self._publish: Callable[[EventView], None] = _ignore
        self._witness: Callable[[Stepped], Awaitable[None]] | None = None
        self._queue: asyncio.Queue[_Letter] = asyncio.Queue(MAX_QUEUED)
        self._opened: deque[_Letter] = deque()
        self._kept: deque[_Letter] = deque()
        self._retry_at = 0.0
        self._pause = RETRY_SECONDS[0]
        self._tick_at = 0.0
        self._look_at = 0.0
        self._pacer = Pacer()
        self._recovered = False
        self._clocks: tuple[float, float] | None = None
        """Wall clock and steady clock at the last event."""
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
        witness: Callable[[Stepped], Awaitable[None]] | None = None,
    ) -> None:
        """Begin to work through the events; effects go to `carry_out`, the host's story to `publish`.

        `witness` is shown each step, when all else is done.
        """
        self._carry_out, self._publish, self._witness = carry_out, publish, witness
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
        await self._queue.put(Letter(event=event))

    async def ask(self, event: Event, *, token: str = "") -> Decided:
        """Carry out a request and return what it led to, once it is durable.

        A submit with a `token` that was used before leads to the job of that time. Raises `StoreError` when
        the outcome cannot be made durable: then nothing happened.
        """
        reply: asyncio.Future[Decided] = asyncio.get_running_loop().create_future()
        await self._queue.put(Letter(event=event, token=token, reply=reply))
        return await reply

    async def until(self, done: Callable[[HostState], bool], seconds: float) -> None:
        """Return when `done` holds of the state, or after that many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not done(self.state):
                    await self._advanced.wait()

    async def _run(self) -> None:
        while True:
            self.pulse.beat()
            letters, again = await self._next()
            async with self._busy:
                if self._kept and not again:
                    # What the world reports waits behind what is kept; requests are refused by themselves.
                    self._kept.extend(letter for letter in letters if letter.reply is None)
                    letters = [letter for letter in letters if letter.reply is not None]
                if letters:
                    await self._handle(letters)
                elif not self._kept:
                    await self._look()
            self._plan_tick()

    async def _look(self) -> None:
        """See whether the store can keep anything: nobody else would say so before the next request."""
        self._look_at = asyncio.get_running_loop().time() + LOOK_SECONDS
        try:
            await self._stored(partial(self._store.check, thorough=self._health.has("store")))
        except StoreError as error:
            self._not_stored((), error)
        else:
            self._health.well("store")

    async def _next(self) -> tuple[list[_Letter], bool]:
        """Return what to look at next (nothing: at the store), and whether that is a second try."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            if self._kept and now >= self._retry_at:
                return take(self._kept, _is_alone), True
            # Before the runtime was looked at, a deadline may be one of a signal that was never sent.
            ticking = self._recovered and not self._kept
            if ticking and now >= self._tick_at:
                return [Letter(event=Tick())], False
            if not self._kept and now >= self._look_at:
                return [], False
            if not self._opened:
                idle = min(self._tick_at, self._look_at) if ticking else self._look_at
                due = self._retry_at if self._kept else idle
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        self._opened.append(await self._queue.get())
            while len(self._opened) < MAX_TOGETHER and not self._queue.empty():
                self._opened.append(self._queue.get_nowait())
            if self._opened:
                return take(self._opened, _is_alone), False

    def _plan_tick(self) -> None:
        now = self._clock.now()
        deadline = next_deadline(self.state, now, self.rules)
        wait = TICK_SECONDS if deadline is None else min(TICK_SECONDS, deadline - now)
        self._tick_at = max(asyncio.get_running_loop().time() + max(TICK_SECONDS_MIN, wait), self._retry_at)
        if self._pacer.owed:
            self._tick_at = max(min(self._tick_at, self._pacer.due), self._retry_at)

    async def _handle(self, letters: Sequence[_Letter]) -> None:
        try:
            made = await self._make(letters)
        except StoreError as error:
            self._not_stored(letters, error)
        except Exception as error:  # noqa: BLE001 - `failed` tells the log
            if len(letters) == 1:
                letters[0].failed(error, log, FAILED)
            else:
                await self._one_by_one(letters)
        else:
            await self._act(letters, made)

    async def _one_by_one(self, letters: Sequence[_Letter]) -> None:
        """Handle letters that failed together: nothing has happened, and a defect costs one answer only."""
        for at, letter in enumerate(letters):
            try:
                made = await self._make([letter])
            except StoreError as error:
                self._not_stored(letters[at:], error)
                return
            except Exception as error:  # noqa: BLE001 - `failed` tells the log
                letter.failed(error, log, FAILED)
            else:
                await self._act([letter], made)

    def _not_stored(self, letters: Sequence[_Letter], error: StoreError) -> None:
        text = f"{error.message}; nothing new is accepted until it works again"
        self._health.trouble("store", f"{text} ({error.hint})" if error.hint else text)
        for letter in letters:
            letter.fail(error)
        reports = [letter for letter in letters if letter.reply is None]
        if reports:
            self._kept.extendleft(
                letter for letter in reversed(reports) if not isinstance(letter.event, Tick)
            )
            self._retry_at = asyncio.get_running_loop().time() + self._pause
            self._pause = min(RETRY_SECONDS[1], self._pause * 2)

    async def _make(self, letters: Sequence[_Letter]) -> _Made:
        """Step the letters and make the outcome durable. If that fails, it raises and nothing has changed."""
        base, now, steady = self.state, self._clock.now(), asyncio.get_running_loop().time()
        clock_set = self._clock_set(now, steady)
        tokens = [letter.token for letter in letters if letter.token]
        known = await self._stored(partial(self._store.submitted, tokens)) if tokens else {}
        fresh = [letter for letter in letters if letter.token not in known]
        happened: list[Event] = [*clock_set, *(letter.event for letter in fresh)]
        if any(isinstance(event, Submitted) and event.spec.after for event in happened):
            happened = await self._stored(partial(_with_settled, self._store, base, happened))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        queued = not self._pacer.puts_off(happened, base.jobs, begun)
        outcome, made = step_all(self._tables, base, happened, now, self.rules, queue=queued)
        stepped = loop.time()
        outcome = outcome.timed(stepped - begun)
        made = made[len(clock_set) :]
        events: tuple[EventView, ...] = ()
        if outcome.state.generation != base.generation:
            of_tokens = {
                letter.token: ids[0] for letter, ids in zip(fresh, made, strict=True) if letter.token
            }
            checkpoint("before commit")
            commit = partial(self._store.commit, base, outcome, now=now, tokens=of_tokens)
            events = await self._stored(commit)
            checkpoint("after commit")
            self._health.well("store")
            self._pause = RETRY_SECONDS[0]
            self._retry_at = 0.0
            self._look_at = loop.time() + LOOK_SECONDS
        self._pacer.stepped(begun, stepped, queued=queued)
        self._clocks = now, steady
        rest = iter(made)
        jobs = tuple((known[one.token],) if one.token in known else next(rest) for one in letters)
        step = Stepped(before=base, outcome=outcome, at=begun, seconds=stepped - begun)
        return _Made(outcome=outcome, events=events, jobs=jobs, step=step)

    async def _act(self, letters: Sequence[_Letter], made: _Made) -> None:
        """Advance to what is durable now: tell it, answer, and have its effects carried out."""
        try:
            await self._advance(made.outcome, made.events)
            if isinstance(letters[0].event, Recovered):
                self._recovered = True
            # Before that, effects are not carried out: recovery gives every outstanding one.
            if self._recovered:
                self._carry_out(made.outcome.effects)
        except Exception as error:  # noqa: BLE001 - `failed` tells the log
            for letter in letters:
                letter.failed(error, log, FAILED)
        for letter, jobs in zip(letters, made.jobs, strict=True):
            letter.answer(Decided(state=made.outcome.state, jobs=jobs))
        if self._witness is not None:
            await self._witness(made.step)

    def _clock_set(self, now: float, steady: float) -> list[Event]:
        """Return the event of the wall clock having left the steady one since the last step, if it has."""
        if self._clocks is None:
            return []
        jump = (now - self._clocks[0]) - (steady - self._clocks[1])
        return [ClockSet(seconds=jump)] if abs(jump) > CLOCK_SLACK_SECONDS else []

    async def _advance(self, outcome: Outcome, events: tuple[EventView, ...]) -> None:
        if outcome.state is not self.state:
            self.state = outcome.state
            self._advanced.set()
            self._advanced = asyncio.Event()
        for told, event in enumerate(events, 1):
            if not told % MAX_TOGETHER:
                # A request may concern thousands of jobs: others are answered meanwhile.
                await asyncio.sleep(0)
            if event.name != "job.placed":  # the line of the decision says that, and more
                log.info(event.name, extra=of_event(event))
            self._publish(event)

    async def _stored(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _ignore(_: object) -> None:
    """Stand in until the mailbox is started."""


def _is_alone(event: Event) -> bool:
    """Say whether it has a step of its own: what comes before `Recovered` has no effects."""
    return isinstance(event, Recovered)


def _with_settled(store: Store, base: HostState, events: Sequence[Event]) -> list[Event]:
    """Return the events, each submit with how the jobs that it waits for ended, of those put to rest."""

    def stored(ident: int) -> Job | None:
        return base.jobs.get(JobId(ident)) or store.job(ident)

    return [
        replace(event, settled=tuple(settled(event.spec.after, base.jobs, stored)))
        if isinstance(event, Submitted) and event.spec.after
        else event
        for event in events
    ]

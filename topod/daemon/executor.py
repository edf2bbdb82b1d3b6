"""Carries out the effects of the state machine and reports what came of them as events.

Each job has a lane: its effects happen strictly in order, those of different jobs side by side. Every
blocking call runs in a thread; every effect that has an answer gets exactly one, however it went.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar, assert_never

from topod.errors import JobRejectedError, ProbeError, PullFailedError, RuntimeUnavailableError, TopodError
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.states import HostState, Job, JobState, Stage
from topod.model.container import ContainerStatus, Observed
from topod.model.job import JobId
from topod.ports import ContainerRuntime, GpuProbe, ImageMissingError
from topod.shell.faults import checkpoint
from topod.shell.health import Health
from topod.shell.logs import Key, of_effect
from topod.shell.vetting import UnknownUserError, Vet, allow, at_create

THREADS: Final = 48
PULLS_AT_ONCE: Final = 2
LIGHT_AT_ONCE: Final = 4
"""Containers without GPUs that are made at once, and as many that are started: an array of a thousand would
leave the daemon no processor to answer with. Those with GPUs are bounded by the GPUs and never wait here."""
RETRY_SECONDS: Final = (0.2, 10.0)
"""First and longest pause before a runtime that did not answer is asked again."""
CHECK_EVERY_SECONDS: Final = 0.25

log = logging.getLogger(__name__)
T = TypeVar("T")
_Lane = deque[fx.Effect]


class AdapterDefectError(TopodError):
    """An adapter raised what its port does not allow; said in the log with its traceback."""

    code = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the executor needs of the daemon around it."""

    post: Callable[[ev.Event], Awaitable[None]]
    state: Callable[[], HostState]
    health: Health
    vet: Vet = allow
    """Judges a job again when its container is made and started; raises `PolicyError`."""


class Executor:
    """Runs effects against one runtime and one probe. Used from the event loop only."""

    def __init__(
        self,
        runtime: ContainerRuntime,
        probe: GpuProbe,
        around: Surroundings,
        *,
        devices_free_seconds: float = 30.0,
    ) -> None:
        """`devices_free_seconds` bounds the wait for GPUs to become really free."""
        self._runtime = runtime
        self._probe = probe
        self._around = around
        self._devices_free_seconds = devices_free_seconds
        self._lanes: dict[str, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pulls = asyncio.Semaphore(PULLS_AT_ONCE)
        # Two, so that the first of many starts before the last is made.
        self._light_creates = asyncio.Semaphore(LIGHT_AT_ONCE)
        self._light_starts = asyncio.Semaphore(LIGHT_AT_ONCE)
        self._threads = ThreadPoolExecutor(THREADS, "effect")
        self._stopped = False

    def carry_out(self, effects: tuple[fx.Effect, ...]) -> None:
        """Queue effects, each in its lane, and return at once; after `stop` the next start gives them."""
        if self._stopped:
            return
        for effect in effects:
            key = effect.handle if isinstance(effect, fx.RemoveStray) else f"job {effect.job}"
            if key in self._lanes:
                # A stray that takes long to remove is seen again by the next look at the runtime.
                if not isinstance(effect, fx.RemoveStray):
                    self._lanes[key].append(effect)
                continue
            self._lanes[key] = deque([effect])
            task = asyncio.create_task(self._drain(key), name=f"lane of {key}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Begin nothing more; calls in progress end by themselves, their answers are not heard."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _drain(self, key: str) -> None:
        lane = self._lanes[key]
        while lane:
            await self._one(lane[0], lane)
            lane.popleft()
        del self._lanes[key]

    async def _one(self, effect: fx.Effect, lane: _Lane) -> None:
        checkpoint("before effect")
        log.debug("effect.begun", extra=of_effect(effect))
        answer = await self._answer(effect, lane)
        checkpoint("after effect")
        if answer is not None:
            await self._around.post(answer)
            checkpoint("after answer")

    async def _answer(self, effect: fx.Effect, lane: _Lane) -> ev.Event | None:  # noqa: C901 - one case an effect
        answer: ev.Event | None = None
        match effect:
            case fx.PullImage():
                answer = await self._pull(effect)
            case fx.Create():
                answer = await self._create(effect)
            case fx.CheckDevices():
                answer = await self._check(effect)
            case fx.Launch():
                answer = await self._launch(effect, lane)
            case fx.Withdraw():
                answer = await self._withdraw(effect)
            case fx.RunHook():
                answer = await self._hook(effect)
            case fx.Freeze():
                answer = await self._freeze(effect)
            case fx.Deliver():
                answer = await self._deliver(effect, lane)
            case fx.Collect():
                await self._remove(effect)
                answer = ev.Collected(job=effect.job, attempt=effect.attempt)
            case fx.RemoveStray():
                await self._remove(effect)
            case _:
                assert_never(effect)
        return answer

    async def _pull(self, effect: fx.PullImage) -> ev.Event:
        try:
            async with self._pulls:
                job = self._around.state().jobs.get(effect.job)
                if job is None or job.state is not JobState.PENDING:
                    return ev.ImageFailed(job=effect.job, error="no longer needed", final=False)
                await self._call(self._runtime.ensure_image, effect.spec)
        except JobRejectedError as error:
            return ev.ImageFailed(job=effect.job, error=error.message, final=True)
        except (RuntimeUnavailableError, AdapterDefectError) as error:
            return ev.ImageFailed(job=effect.job, error=error.message, final=False)
        return ev.ImageReady(job=effect.job)

    async def _create(self, effect: fx.Create) -> ev.Event:
        # Tried until the runtime answers even if the job was cancelled: the container may exist by now, and
        # only the answer tells its handle.
        def create() -> str:
            spec = at_create(self._around.vet, effect.spec)
            return self._runtime.create(effect.job, effect.attempt, spec, effect.allocation)

        failed = partial(ev.CreateFailed, job=effect.job, attempt=effect.attempt)
        try:
            turn = self._turn(self._light_creates, effect.job)
            handle = await self._patiently(create, effect, lambda: False, turn)
        except ImageMissingError:
            text = f"image {effect.spec.image} is gone"
            return failed(error=text, final=False, image_missing=True)
        except JobRejectedError as error:
            return failed(error=error.message, final=True)
        except (AdapterDefectError, UnknownUserError) as error:
            return failed(error=error.message, final=False)
        return ev.Created(job=effect.job, attempt=effect.attempt, handle=handle)

    async def _launch(self, effect: fx.Launch, lane: _Lane) -> ev.Event:
        in_doubt = effect.again

        def obsolete() -> bool:
            # Told to stop meanwhile: the signal waits behind this start, which is better not made.
            return len(lane) > 1 or not self._is_at(effect.job, effect.attempt, Stage.LAUNCHING)

        def start() -> float:
            nonlocal in_doubt
            job = self._around.state().jobs.get(effect.job)
            if job is not None:
                at_create(self._around.vet, job.spec)
            # Whatever comes of it but a plain no: the runtime may be at it.
            before, in_doubt = in_doubt, True
            try:
                return self._runtime.start(effect.handle, effect.checkpoint)
            except JobRejectedError:
                in_doubt = before
                raise

        try:
            turn = self._turn(self._light_starts, effect.job)
            at = await self._patiently(start, effect, obsolete, turn)
        except (JobRejectedError, RuntimeUnavailableError, AdapterDefectError, UnknownUserError) as error:
            stopping = self._is_stopping(effect)
            ran_since = await self._never_to_start(effect) if stopping else None
            if ran_since is None:
                return ev.StartFailed(
                    job=effect.job,
                    attempt=effect.attempt,
                    error=error.message,
                    final=isinstance(error, JobRejectedError),
                    in_doubt=in_doubt and not stopping,
                )
            at = ran_since
        return ev.Started(job=effect.job, attempt=effect.attempt, at=at)

    async def _withdraw(self, effect: fx.Withdraw) -> ev.Event:
        at = await self._never_to_start(effect)
        if at is None:
            error = "stopped before it ran"
            return ev.StartFailed(job=effect.job, attempt=effect.attempt, error=error, final=False)
        return ev.Started(job=effect.job, attempt=effect.attempt, at=at)

    async def _never_to_start(self, effect: fx.Launch | fx.Withdraw) -> float | None:
        """Return since when a container runs (or ran) all the same that is not to; else remove it: None.

        The runtime may carry out long after what it did not answer in time. Others get the GPUs when this is
        over, so it must be unable to start by then; where it did start, it is owed SIGTERM and its grace.
        """
        for found in await self._look(effect):
            if found.handle == effect.handle and self._has_begun(found):
                return found.started_at or 0.0
        await self._remove(effect)
        return None

    async def _look(self, effect: fx.Launch | fx.Withdraw) -> tuple[Observed, ...]:
        """Return what the runtime has, however long it takes to tell."""
        while True:
            try:
                return await self._patiently(self._runtime.observe, effect, lambda: False)
            except (JobRejectedError, AdapterDefectError) as error:
                extra = of_effect(effect) | {Key.ERROR: error.message}
                log.warning("runtime.unseen", extra=extra)
                await asyncio.sleep(RETRY_SECONDS[1])

    async def _check(self, effect: fx.CheckDevices) -> ev.Event:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._devices_free_seconds
        while True:
            busy, unknown = dict[str, str](), ""
            try:
                busy = await self._in_thread(self._probe.busy, effect.gpus)
            except (ProbeError, AdapterDefectError) as error:
                unknown = error.message
            if not busy and not unknown:
                return ev.DevicesFree(job=effect.job, attempt=effect.attempt)
            late = loop.time() >= deadline
            if late or not self._is_at(effect.job, effect.attempt, Stage.CHECKING):
                return ev.DevicesBusy(
                    job=effect.job, attempt=effect.attempt, busy=tuple(busy.items()), unknown=unknown
                )
            await asyncio.sleep(CHECK_EVERY_SECONDS)

    async def _hook(self, effect: fx.RunHook) -> ev.Event:
        done = partial(ev.HookDone, job=effect.job, attempt=effect.attempt)
        run = partial(self._runtime.run_hook, effect.handle, effect.command, effect.timeout_seconds)
        try:
            code, text = await self._call(run)
        except (RuntimeUnavailableError, JobRejectedError, AdapterDefectError) as error:
            return done(ok=False, text=error.message)
        if code is None:
            return done(ok=False, text=f"no end within {effect.timeout_seconds:g} s")
        return done(ok=code == 0, text=text if code == 0 else f"exit code {code}: {text}".rstrip(": "))

    async def _freeze(self, effect: fx.Freeze) -> ev.Event:
        done = partial(ev.Frozen, job=effect.job, attempt=effect.attempt)
        try:
            life = await self._call(self._runtime.freeze, effect.handle, effect.name, effect.timeout_seconds)
        except (RuntimeUnavailableError, JobRejectedError, AdapterDefectError) as error:
            return done(ok=False, text=error.message)
        return done(ok=True, life=life)

    async def _deliver(self, effect: fx.Deliver, lane: _Lane) -> ev.Event:
        def obsolete() -> bool:
            # A stronger signal waits behind this one, or the job is gone.
            return len(lane) > 1 or not self._is_stopping(effect)

        try:
            signal = partial(self._runtime.signal, effect.handle, effect.signal)
            await self._patiently(signal, effect, obsolete)
        except (RuntimeUnavailableError, JobRejectedError, AdapterDefectError) as error:
            extra = of_effect(effect) | {Key.ERROR: error.message}
            log.warning("signal.dropped", extra=extra)
        return ev.Delivered(job=effect.job, attempt=effect.attempt, signal=effect.signal)

    async def _remove(self, effect: fx.Collect | fx.RemoveStray | fx.Launch | fx.Withdraw) -> None:
        work = partial(self._runtime.remove, effect.handle)
        while True:
            try:
                await self._patiently(work, effect, lambda: False)
            except (JobRejectedError, AdapterDefectError) as error:
                extra = of_effect(effect) | {Key.ERROR: error.message}
                log.warning("container.kept", extra=extra)
                await asyncio.sleep(RETRY_SECONDS[1])
            else:
                return

    def _turn(self, light: asyncio.Semaphore, job: JobId) -> asyncio.Semaphore | None:
        """Return what a job has to wait for; None: its turn is now."""
        found = self._around.state().jobs.get(job)
        return light if found is not None and not found.spec.request.gpus else None

    async def _patiently(
        self,
        work: Callable[[], T],
        effect: fx.Effect,
        obsolete: Callable[[], bool],
        turn: asyncio.Semaphore | None = None,
    ) -> T:
        """Return what `work` returns; ask again while the runtime does not answer.

        Each time it waits for its `turn`. Raises `RuntimeUnavailableError` when the effect became obsolete
        meanwhile.
        """
        pause, longest = RETRY_SECONDS
        while True:
            try:
                return await self._in_turn(work, turn, obsolete)
            except RuntimeUnavailableError as error:
                if obsolete():
                    raise
                extra = of_effect(effect) | {Key.ERROR: error.message, Key.RETRY_SECONDS: pause}
                log.warning("effect.delayed", extra=extra)
            await asyncio.sleep(pause)
            pause = min(longest, pause * 2)

    async def _in_turn(
        self, work: Callable[[], T], turn: asyncio.Semaphore | None, obsolete: Callable[[], bool]
    ) -> T:
        if turn is None:
            return await self._call(work)
        waits = turn.locked()
        async with turn:
            if waits and obsolete():
                raise RuntimeUnavailableError("no longer needed")
            return await self._call(work)

    async def _call(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            result = await self._in_thread(work, *arguments)
        except PullFailedError:
            # The engine answered: what one job's image lacks is that job's affair, told as its reason.
            self._around.health.well("runtime")
            raise
        except RuntimeUnavailableError as error:
            self._around.health.trouble("runtime", error.message)
            raise
        self._around.health.well("runtime")
        return result

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        except (RuntimeUnavailableError, JobRejectedError, ProbeError, ImageMissingError):
            raise
        except Exception as error:
            log.exception("effect.failed")
            raise AdapterDefectError(f"unexpected {type(error).__name__}; see the log of topod") from error

    def _job(self, job: JobId, attempt: int) -> Job | None:
        found = self._around.state().jobs.get(job)
        return found if found is not None and found.attempt == attempt else None

    def _has_begun(self, container: Observed) -> bool:
        """Say whether a container runs or ran; one that is frozen has had another life before."""
        job = self._job(container.job, container.attempt)
        was_frozen = job is not None and job.frozen is not None and job.frozen_life == container.started_at
        ran = container.status is ContainerStatus.EXITED and container.started_at is not None
        return container.status is ContainerStatus.RUNNING or (ran and not was_frozen)

    def _is_at(self, job: JobId, attempt: int, stage: Stage) -> bool:
        found = self._job(job, attempt)
        return found is not None and found.stage is stage

    def _is_stopping(self, effect: fx.Deliver | fx.Launch) -> bool:
        found = self._job(effect.job, effect.attempt)
        return found is not None and found.state is JobState.STOPPING

"""Notices that containers ended: the engine's events say when to look, the engine's list says what is so.

Events are lost when the engine restarts, so they wake the one thread that looks; it also looks every few
seconds by itself. So an exit is never missed, and reported at least once. Where the event and what this
process did with the container tell the whole story, it is reported at once: see `Lives`.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import docker
import docker.errors

from topod.adapters.docker_container import ENDED_STATES, epoch
from topod.adapters.docker_engine import Engine, engine_errors
from topod.adapters.docker_spec import ATTEMPT_LABEL, JOB_LABEL, STATE_LABEL
from topod.errors import RuntimeUnavailableError
from topod.model.job import JobId
from topod.ports import Exit

log = logging.getLogger(__name__)

RESYNC_SECONDS = 5.0
RETRY_SECONDS = 1.0
LOOK_AGAIN_SECONDS = 0.1
LOOKS = 20
"""How often to look for a container whose end was announced: the event can come before the list tells it."""
BACK_OFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(slots=True)
class _Death:
    """An end that an event announced, and how often the list is still looked at for it."""

    exit: Exit | None
    looks: int = LOOKS


@dataclass(slots=True)
class _Life:
    """Since when a container runs (epoch seconds, as the engine tells it), and what became of its job."""

    began: float
    told_to_stop: bool = False


class Lives:
    """What this process knows of the containers it started, by name. Thread-safe.

    A death is told when no process is left; then the engine tidies up, and answers no look at the container
    for some milliseconds, for which a preemptor would wait. Of most deaths the look says nothing more. When
    the life began is known of one that was started here, and that was neither frozen nor restored: else the
    event may be of an earlier life. Whether memory ran out is of interest only where a job failed, not with
    exit code 0 nor where it was told to stop.
    """

    def __init__(self) -> None:
        """Know of none."""
        self._lives: dict[str, _Life] = {}

    def began(self, name: str, at: float) -> None:
        """Note that the container was started, and runs since `at`."""
        self._lives[name] = _Life(at)

    def told_to_stop(self, name: str) -> None:
        """Note that the job is told to stop."""
        if life := self._lives.get(name):
            life.told_to_stop = True

    def forget(self, name: str) -> None:
        """Know nothing of the container: it is to be removed, or to be frozen."""
        self._lives.pop(name, None)

    def ended(self, announced: Exit) -> Exit | None:
        """Return the whole of the exit that an event announced; None: the engine has to be asked."""
        life = self._lives.get(announced.handle)
        if life is None or (announced.exit_code != 0 and not life.told_to_stop):
            return None
        return replace(announced, started_at=life.began)


class ExitWatcher:
    """Two threads: one waits for events, one looks at the list and reports."""

    def __init__(
        self,
        engine: Engine,
        state_id: str,
        on_exit: Callable[[Exit], None],
        on_seen: Callable[[str, JobId, int], None],
        lives: Lives,
    ) -> None:
        """Start watching. `on_seen(name, job, attempt)` is called for each container that ever ran."""
        self._engine = engine
        self._lives = lives
        self._label = f"{STATE_LABEL}={state_id}"
        self._on_exit = on_exit
        self._on_seen = on_seen
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._died: dict[str, _Death] = {}
        self._reported: set[str] = set()
        self._stream: docker.types.CancellableStream[dict[str, Any]] | None = None
        self._threads = [
            threading.Thread(target=self._listen, name="container events", daemon=True),
            threading.Thread(target=self._look_repeatedly, name="container list", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop both threads."""
        self._stop.set()
        self._wake.set()
        self._close_stream()
        for thread in self._threads:
            thread.join(2)

    def again(self, name: str) -> None:
        """Take an exit of the container as news, though one was told: it is restored from a checkpoint."""
        self._reported.discard(name)

    def _listen(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                with engine_errors("waiting for events"):
                    stream = self._engine.quick.events(
                        filters={"type": "container", "event": "die", "label": self._label}, decode=True
                    )
                    self._stream = stream
                    failures = 0
                    self._wake.set()  # what ended before this stream began
                    if self._stop.is_set():  # close() came before there was a stream to close
                        return
                    for event in stream:
                        self._hear(event)
            except RuntimeUnavailableError as error:
                log.debug("event stream ended: %s", error)
            self._close_stream()
            self._stop.wait(BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS) - 1)])
            failures += 1

    def _hear(self, event: Mapping[str, Any]) -> None:
        exit_ = _announced(event)
        whole = self._lives.ended(exit_) if exit_ is not None else None
        if whole is not None and self._tell(whole):
            self._reported.add(whole.handle)
            return
        self._died[str(event.get("id", ""))] = _Death(exit_)
        self._wake.set()

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except (OSError, AttributeError, docker.errors.DockerException):
                log.debug("event stream was closed already")

    def _look_repeatedly(self) -> None:
        silent = False
        while not self._stop.is_set():
            # Cleared before looking: an event that comes while we look makes us look again.
            self._wake.clear()
            pause = RESYNC_SECONDS
            try:
                self._look_at_announced()
                handled = self._look()
                if silent:
                    log.info("the container engine answers again")
                silent = False
                if not handled:
                    pause = RETRY_SECONDS
                if self._died:
                    pause = LOOK_AGAIN_SECONDS
            except RuntimeUnavailableError as error:
                if not silent:
                    log.warning("%s", error)
                silent = True
                pause = RETRY_SECONDS
            self._wake.wait(pause)

    def _look(self) -> bool:
        """Report every ended container not yet reported; return whether all reports were handled."""
        with engine_errors("listing containers"):
            rows = self._engine.quick.containers(all=True, filters={"label": self._label})
        names = {row["Names"][0].removeprefix("/") for row in rows if row["Names"]}
        self._reported &= names
        handled = True
        for row in rows:
            if not row["Names"] or row["State"] == "created":
                continue
            name = row["Names"][0].removeprefix("/")
            job, attempt = JobId(int(row["Labels"][JOB_LABEL])), int(row["Labels"][ATTEMPT_LABEL])
            self._on_seen(name, job, attempt)
            if row["State"] not in ENDED_STATES:
                self._reported.discard(name)
                continue
            if name not in self._reported:
                handled &= self._report(name, job, attempt)
            if name in self._reported:
                self._died.pop(row["Id"], None)
        for container, death in list(self._died.items()):
            death.looks -= 1
            if death.looks <= 0:
                # Ended and removed by somebody before it was seen in the list: the event is all there is.
                if death.exit is not None and not self._tell(death.exit):
                    return False
                self._died.pop(container)
        return handled

    def _look_at_announced(self) -> None:
        """Report what events say has ended, without the list, which takes the engine ten times as long."""
        for container, death in list(self._died.items()):
            known = death.exit
            if known is not None and known.handle not in self._reported:
                self._report(known.handle, known.job, known.attempt, container)

    def _report(self, name: str, job: JobId, attempt: int, container: str | None = None) -> bool:
        """Report a container that has ended; `container` is its id where it may have another name by now."""
        with engine_errors("inspecting a container"):
            try:
                state: Mapping[str, Any] = self._engine.quick.inspect_container(container or name)["State"]
            except docker.errors.NotFound:
                return True
        if state["Status"] not in ENDED_STATES:
            return True  # announced, and not yet so: it will be looked at again
        told = self._tell(
            Exit(
                job=job,
                attempt=attempt,
                handle=name,
                exit_code=state["ExitCode"],
                out_of_memory=bool(state.get("OOMKilled")),
                started_at=epoch(state["StartedAt"]),
            )
        )
        if told:
            self._reported.add(name)
        return told

    def _tell(self, exit_: Exit) -> bool:
        try:
            self._on_exit(exit_)
        except Exception:
            log.exception("the exit of job %d could not be handled; it will be reported again", exit_.job)
            return False
        return True


def _announced(event: Mapping[str, Any]) -> Exit | None:
    """Return the exit that a `die` event tells of, as far as it tells it."""
    facts = (event.get("Actor") or {}).get("Attributes") or {}
    try:
        job, attempt = JobId(int(facts[JOB_LABEL])), int(facts[ATTEMPT_LABEL])
        return Exit(job=job, attempt=attempt, handle=facts["name"], exit_code=int(facts["exitCode"]))
    except (KeyError, ValueError):
        return None

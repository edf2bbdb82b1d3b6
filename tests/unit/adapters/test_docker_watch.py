"""When a death is told by the engine's event alone, and when the engine is asked: a pretended engine."""

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from topod.adapters.docker_engine import Engine
from topod.adapters.docker_spec import ATTEMPT_LABEL, JOB_LABEL
from topod.adapters.docker_watch import ExitWatcher, Lives
from topod.model.job import JobId
from topod.ports import Exit

NAME = "topod-x-7-2"
SECONDS = 20.0
BEGAN = 1000.0
ENDED = {"Status": "exited", "ExitCode": 3, "OOMKilled": True, "StartedAt": "1970-01-01T00:33:20Z"}


class PretendedEngine:
    """Tells the deaths that it is given, knows no container by its list, and one when it is asked."""

    def __init__(self, *states: dict[str, Any]) -> None:
        self.deaths: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.states = list(states)
        self.asked = 0

    @property
    def quick(self) -> "PretendedEngine":
        return self

    def events(self, **_: object) -> "PretendedEngine":
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(cast("Any", self.deaths.get), None)

    def close(self) -> None:
        self.deaths.put(None)

    def containers(self, **_: object) -> list[dict[str, Any]]:
        return []

    def inspect_container(self, _: str) -> dict[str, Any]:
        self.asked += 1
        return {"State": self.states.pop(0) if len(self.states) > 1 else self.states[0]}

    def dies(self, exit_code: int) -> None:
        facts = {JOB_LABEL: "7", ATTEMPT_LABEL: "2", "name": NAME, "exitCode": str(exit_code)}
        self.deaths.put({"id": "c0ffee", "Actor": {"Attributes": facts}})


@contextmanager
def watched(engine: PretendedEngine, lives: Lives) -> Iterator["queue.Queue[Exit]"]:
    told: queue.Queue[Exit] = queue.Queue()
    watcher = ExitWatcher(cast("Engine", engine), "x", told.put, lambda *_: None, lives)
    try:
        yield told
    finally:
        watcher.close()


def told(exit_code: int | None, *, began: float = BEGAN, out_of_memory: bool = False) -> Exit:
    return Exit(
        job=JobId(7),
        attempt=2,
        handle=NAME,
        exit_code=exit_code,
        started_at=began,
        out_of_memory=out_of_memory,
    )


def test_a_success_of_a_known_life_is_told_without_asking_the_engine() -> None:
    engine, lives = PretendedEngine(ENDED), Lives()
    lives.began(NAME, BEGAN)
    with watched(engine, lives) as exits:
        engine.dies(0)
        assert exits.get(timeout=SECONDS) == told(0)
    assert engine.asked == 0


def test_what_was_told_to_stop_is_told_without_asking_the_engine_however_it_ended() -> None:
    engine, lives = PretendedEngine(ENDED), Lives()
    lives.began(NAME, BEGAN)
    lives.told_to_stop(NAME)
    with watched(engine, lives) as exits:
        engine.dies(143)
        assert exits.get(timeout=SECONDS) == told(143)
    assert engine.asked == 0


def test_the_engine_is_asked_why_a_job_failed() -> None:
    engine, lives = PretendedEngine(ENDED), Lives()
    lives.began(NAME, BEGAN)
    with watched(engine, lives) as exits:
        engine.dies(3)
        assert exits.get(timeout=SECONDS) == told(3, began=2000.0, out_of_memory=True)


def test_a_death_of_a_container_that_was_frozen_may_be_of_an_earlier_life() -> None:
    engine, lives = PretendedEngine({"Status": "running"}, ENDED), Lives()
    lives.began(NAME, BEGAN)
    lives.forget(NAME)
    with watched(engine, lives) as exits:
        engine.dies(0)
        assert exits.get(timeout=SECONDS) == told(3, began=2000.0, out_of_memory=True)
    assert engine.asked > 1


def test_an_exit_that_could_not_be_handled_is_told_again() -> None:
    engine, lives = PretendedEngine(ENDED), Lives()
    lives.began(NAME, BEGAN)
    exits: queue.Queue[Exit] = queue.Queue()
    failures = [RuntimeError("the loop is not there yet")]

    def on_exit(exit_: Exit) -> None:
        if failures:
            raise failures.pop()
        exits.put(exit_)

    watcher = ExitWatcher(cast("Engine", engine), "x", on_exit, lambda *_: None, lives)
    try:
        engine.dies(0)
        assert exits.get(timeout=SECONDS).started_at == 2000.0
    finally:
        watcher.close()

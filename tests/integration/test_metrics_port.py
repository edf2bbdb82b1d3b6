"""The port for Prometheus: bounded for whoever asks slowly, badly or too often, and never in the owner's way."""

import asyncio
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import pytest

from topod.adapters import metrics_port
from topod.adapters.metrics_port import MetricsPort
from topod.errors import ConflictError


def get(url: str, method: str = "GET") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@asynccontextmanager
async def answering(look: Callable[[], int]) -> AsyncIterator[MetricsPort[int]]:
    port = MetricsPort(("127.0.0.1", 0), look, lambda seen: f"seen {seen}\n".encode())
    port.bind()
    port.start()
    try:
        yield port
    finally:
        port.stop()


def play(look: Callable[[], int], story: Callable[[MetricsPort[int]], Any]) -> Any:
    """Run a story in a thread while the owner's loop runs here."""

    async def run() -> Any:
        async with answering(look) as port:
            return await asyncio.to_thread(story, port)

    return asyncio.run(run())


def raw(port: MetricsPort[int], data: bytes) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", int(port.url.split(":")[2].split("/")[0])), 60)
    found.sendall(data)
    return found


def test_metrics_are_had_at_one_place_by_reading() -> None:
    def story(port: MetricsPort[int]) -> None:
        assert get(port.url) == (200, "seen 7\n")
        assert get(f"{port.url}?x=1", "HEAD") == (200, "")
        assert get(port.url.replace("/metrics", "/"))[0] == 404
        assert get(port.url, "POST")[0] == 405
        with closing(raw(port, b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 5000)) as wire:
            assert b" 431 " in wire.recv(100)

    play(lambda: 7, story)


def test_who_asks_without_pause_is_given_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_port, "FRESH_SECONDS", 3600.0)
    looks: list[int] = []

    def look() -> int:
        looks.append(1)
        assert threading.current_thread() is threading.main_thread()
        return len(looks)

    assert play(look, lambda port: [get(port.url) for _ in range(20)]) == [(200, "seen 1\n")] * 20
    assert len(looks) == 1


def test_those_who_say_nothing_are_pushed_out_by_who_asks() -> None:
    def story(port: MetricsPort[int]) -> None:
        silent = [raw(port, b"GET /met") for _ in range(metrics_port.CONNECTIONS + 8)]
        assert get(port.url) == (200, "seen 7\n")
        for wire in silent[:8]:
            with suppress(ConnectionResetError):
                assert wire.recv(1) == b""
        for wire in silent:
            wire.close()

    play(lambda: 7, story)


def test_a_connection_ends_in_time_whatever_its_client_leaves_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_port, "SECONDS", 0.2)

    def story(port: MetricsPort[int]) -> None:
        with closing(raw(port, b"GET /metrics HTTP/1.1\r\n")) as wire, suppress(ConnectionResetError):
            assert wire.recv(1) == b""

    play(lambda: 7, story)


def test_an_owner_that_is_busy_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_port, "LOOK_SECONDS", 0.2)

    async def run() -> None:
        async with answering(lambda: 7) as port:
            done = threading.Event()
            told: list[tuple[int, str]] = []

            def ask() -> None:
                told.append(get(port.url))
                done.set()

            thread = threading.Thread(target=ask)
            thread.start()
            assert done.wait(60)  # the loop stands still here
            thread.join()
            assert told == [(503, "it is busy; ask again\n")]

    asyncio.run(run())


def test_a_port_in_use_is_told_in_one_line() -> None:
    first: MetricsPort[int] = MetricsPort(("127.0.0.1", 0), lambda: 1, lambda _: b"")
    first.bind()
    number = int(first.url.split(":")[2].split("/")[0])
    second: MetricsPort[int] = MetricsPort(("127.0.0.1", number), lambda: 1, lambda _: b"")
    try:
        with pytest.raises(ConflictError, match=f"port {number} already"):
            second.bind()
    finally:
        first.stop()

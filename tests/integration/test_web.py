"""`topoctl web` with a real topod, in a real browser, and asked as an attacker would ask."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import psutil
import pytest

from tests.browser import Browser
from tests.integration.daemon_process import ROOT, START_SECONDS, Topod, topod_in

pytest.importorskip("textual_serve", reason="textual-serve is not installed (the extra `web`)")
aiohttp = pytest.importorskip("aiohttp")


@pytest.fixture(scope="module")
def topod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topod]:
    yield from topod_in(tmp_path_factory.mktemp("web"))


def topoctl(topod: Topod, *words: str) -> list[str]:
    return [sys.executable, "-m", "topoctl", "--socket", str(topod.socket), "web", *words]


class Web:
    """One `topoctl web`; ends with the test."""

    def __init__(self, topod: Topod, *words: str) -> None:
        self.process = subprocess.Popen(
            topoctl(topod, "--port", "0", *words),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, self.process.communicate()[1]
        self.site, _, self.key = self.address.partition("/?key=")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def screens(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 2 * START_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


def test_a_browser_sees_a_preemption_and_changes_nothing(topod: Topod, tmp_path: Path) -> None:
    small = topod.submit("sleep", "600", gpus=4, priority=100, name="small")
    topod.wait(small.id, "running")
    with Web(topod) as web:
        with Browser(tmp_path / "profile") as page:
            page.open(web.address)
            page.until_shown("4 of 8 GPUs free")
            page.press("2")
            page.until_shown("asks for 4 GPUs, any guaranteed")
            page.press("k")
            page.until_shown("this page only looks")
            page.press("R")
            page.until_shown("a recording is a file of the server")
            page.press("4")
            page.until_shown("no preemption so far")
            big = topod.submit("sleep", "600", gpus=8, priority=1000, name="big")
            page.until_shown(f"job {small.id} (low): holds GPUs 0-3, which the plan takes")
            page.press("1")
            page.until(f"window.terminalText().split('▮ {big.id} high').length === 9")
            assert all(address.replace("ws:", "http:").startswith(web.site) for address in page.asked)
            assert page.value("location.search + document.cookie") == ""
            assert page.complaints == []
            (screen,) = web.screens()
        until(lambda: gone([screen]))
        topod.cancel(big.id)
        topod.wait(big.id)
        assert topod.wait(small.id, "running").state == "running"
        topod.cancel(small.id)
        web.process.send_signal(signal.SIGTERM)
        assert web.process.wait(60) == 0


def test_strangers_are_turned_away_and_no_screen_outlives_the_server(topod: Topod) -> None:
    async def story(web: Web) -> None:
        port = web.site.rpartition(":")[2]
        cookie = {"Cookie": f"topod-{port}={web.key}"}
        async with aiohttp.ClientSession() as session:

            async def status(path: str, **headers: str) -> int:
                async with session.get(web.site + path, headers=headers, allow_redirects=False) as answer:
                    assert (
                        "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
                        or answer.status == 503
                    )
                    return int(answer.status)

            assert await status("/") == 403
            assert await status("/?key=guess") == 403
            assert await status(f"/?key={web.key}") == 303
            assert await status("/", **cookie) == 200
            assert await status("/", **cookie, Host="evil.example") == 403
            assert await status("/ws", **cookie) == 403
            for origin in ("http://evil.example", "null"):
                assert await status("/ws", **cookie, Origin=origin) == 403
            assert await status("/ws", Origin=web.site) == 403
            assert web.screens() == []
            own = {**cookie, "Origin": web.site}
            address = web.site.replace("http", "ws") + "/ws?width=100&height=30"
            async with session.ws_connect(address, headers=own) as screen:
                assert (await screen.receive(60)).type is aiohttp.WSMsgType.BINARY
                assert await status("/ws", **own) == 503
                running = web.screens()
                await screen.send_str("nonsense")
                while (await screen.receive(60)).type not in (
                    aiohttp.WSMsgType.CLOSE,
                    aiohttp.WSMsgType.CLOSED,
                ):
                    pass
            until(lambda: gone(running))
            async with session.ws_connect(address, headers=own) as screen:
                await screen.receive(60)
                running = web.screens()
                assert len(running) == 1
                web.process.kill()
                until(lambda: gone(running))

    with Web(topod, "--sessions", "1") as web:
        asyncio.run(story(web))


def test_what_cannot_be_served_is_told_in_one_line(topod: Topod) -> None:
    def told(command: list[str]) -> tuple[int, str]:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr.splitlines()[0]

    with Web(topod) as web:
        port = web.site.rpartition(":")[2]
        assert told(topoctl(topod, "--port", port)) == (5, f"error: port {port} of 127.0.0.1 is taken")
    status, line = told(topoctl(topod, "--listen", "0.0.0.0"))
    assert (status, line.partition(":")[0], "HTTP hides nothing" in line) == (2, "error", True)
    missing = "import sys; sys.modules['textual_serve'] = None; from topoctl.main import run; sys.exit(run(['web']))"
    assert told([sys.executable, "-c", missing]) == (
        2,
        "error: the page needs textual-serve, which is not installed",
    )

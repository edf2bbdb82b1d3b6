"""What systemd hears, on a real socket; and what a reload takes."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from topod.adapters.service_manager import ServiceManager
from topod.shell import supervision
from topod.shell.config_file import ConfigFile
from topod.shell.config_reading import load_config, parse_config
from topod.shell.configured import Configured
from topod.shell.health import Health
from topod.shell.options import HOST, read_given
from topod.shell.reloading import Reloader
from topod.shell.supervision import Pulse, Supervision


class Systemd:
    """The other end: what was told, line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.wire.bind(str(path))
        self.wire.setblocking(False)

    async def hears(self) -> list[str]:
        async with asyncio.timeout(20):
            return (await asyncio.get_running_loop().sock_recv(self.wire, 4096)).decode().splitlines()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    one = Systemd(tmp_path / "notify")
    with one.wire:
        yield one


def test_ready_then_alive_then_what_changed_and_the_end(systemd: Systemd) -> None:
    async def watched() -> None:
        health = Health()
        it = Supervision(
            ServiceManager(str(systemd.path), 0.04),
            line=lambda: "all well",
            health=health,
            pulse=lambda: None,
        )
        it.start()
        assert await systemd.hears() == ["READY=1", "STATUS=all well"]
        assert await systemd.hears() == ["WATCHDOG=1"]
        health.trouble("store", "disk full")
        while (heard := await systemd.hears()) == ["WATCHDOG=1"]:
            pass
        assert heard == ["STATUS=all well; store: disk full"]
        it.reloading()
        while (heard := await systemd.hears()) == ["WATCHDOG=1"]:
            pass
        assert heard[0] == "RELOADING=1"
        assert heard[1].startswith("MONOTONIC_USEC=")
        await it.stop()
        while (heard := await systemd.hears()) == ["WATCHDOG=1"]:
            pass
        assert heard == ["STOPPING=1", "STATUS=stopping; jobs go on"]

    asyncio.run(watched())


def test_nothing_is_said_of_life_while_the_owner_of_the_state_stands_still(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watched() -> None:
        pulse, lines = Pulse(), iter(range(1000))
        manager = ServiceManager(str(systemd.path), 0.04)
        it = Supervision(manager, line=lambda: str(next(lines)), health=Health(), pulse=lambda: pulse)
        monkeypatch.setattr(supervision, "STILL_SECONDS", -1.0)
        it.start()
        # Each beat has a line of its own here; none of them comes with a sign of life.
        heard = [line for _ in range(4) for line in await systemd.hears()]
        assert "WATCHDOG=1" not in heard
        assert "STATUS=2" in heard
        monkeypatch.setattr(supervision, "STILL_SECONDS", 60.0)
        while await systemd.hears() != ["WATCHDOG=1"]:
            pass
        await it.stop()

    asyncio.run(watched())


def test_ready_is_said_again_until_it_is_taken(tmp_path: Path) -> None:
    async def watched() -> None:
        path = tmp_path / "notify"
        it = Supervision(
            ServiceManager(str(path), 0.04), line=lambda: "well", health=Health(), pulse=lambda: None
        )
        it.start()
        late = Systemd(path)
        with late.wire:
            assert await late.hears() == ["READY=1", "STATUS=well"]
            await it.stop()

    asyncio.run(watched())


def reloaded(tmp_path: Path, text: str) -> tuple[list[ConfigFile], list[str]]:
    """Return what is in force after a file was read again, and what the board says."""
    path, health, taken = tmp_path / "topod.toml", Health(), list[ConfigFile]()
    path.write_text('[[quota]]\nuser = "*"\ngpus = 2\n')
    configured = Configured(path, load_config(path), read_given(HOST, ["--metrics", "1"], {}))
    path.write_text(text)
    asyncio.run(Reloader(configured, take=taken.append, health=health).reload())
    return taken, health.notes


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("", []),
        ('[[quota]]\nuser = "*"\ngpus = 4\n[logs]\nkeep_days = 3\n', []),
        ('[coordinator]\nplacing = "spread"\n', []),
        # An option wins over it.
        ('[metrics]\nlisten = "2"\n', []),
        (
            '[logs]\nkeep_days = 3\nmax_bytes = "5M"\n[security]\nview = ["a"]\n',
            ["config: logs.max_bytes, security.view changed: that needs a restart"],
        ),
    ],
)
def test_a_reload_takes_what_it_can_and_names_the_rest(tmp_path: Path, text: str, notes: list[str]) -> None:
    taken, said = reloaded(tmp_path, text)
    assert taken == [parse_config(text, "x")]
    assert said == notes


def test_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    taken, said = reloaded(tmp_path, "[quotas]\n")
    assert taken == []
    assert len(said) == 1
    assert said[0].startswith("config: refused, the one before stays in force: ")

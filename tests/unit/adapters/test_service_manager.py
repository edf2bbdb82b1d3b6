import os
import secrets
import socket
from pathlib import Path

import pytest

from topod.adapters.credentials import handed
from topod.adapters.service_manager import READY, ServiceManager, status


def listening(address: str) -> socket.socket:
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    wire.bind(address)
    wire.settimeout(10)
    return wire


@pytest.mark.parametrize("abstract", [False, True])
def test_lines_arrive_in_one_datagram(tmp_path: Path, abstract: bool) -> None:
    name = f"@topod-test-{secrets.token_hex(8)}" if abstract else str(tmp_path / "notify")
    with listening("\0" + name[1:] if abstract else name) as wire:
        manager = ServiceManager.of({"NOTIFY_SOCKET": name})
        assert manager.tell(READY, status("two\nlines"))
        assert wire.recv(4096) == b"READY=1\nSTATUS=two lines"


def test_what_systemd_says_is_taken_out_of_the_environment() -> None:
    environ = {
        "NOTIFY_SOCKET": "/x",
        "WATCHDOG_USEC": "4000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    manager = ServiceManager.of(environ)
    assert (manager.listens, manager.watchdog_seconds) == (True, 4.0)
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "vsock:2:1", "WATCHDOG_USEC": "4000000"},
    ],
)
def test_nobody_watches_where_it_is_not_said_of_this_process(environ: dict[str, str]) -> None:
    assert ServiceManager.of(environ).watchdog_seconds is None


def test_what_is_not_taken_is_said_and_harms_nobody(tmp_path: Path) -> None:
    assert not ServiceManager(str(tmp_path / "nobody")).tell(READY)
    assert ServiceManager().tell(READY)


def test_a_key_is_taken_from_the_credential_of_its_name_unless_that_says_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, given = tmp_path / "etc", tmp_path / "given"
    given.mkdir()
    (given / "host.key").write_text("topod-private:...\n")
    (given / "etcd-client.key").write_text("none")
    assert handed(folder / "host.key", folder) == folder / "host.key"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(given))
    assert handed(folder / "host.key", folder) == given / "host.key"
    for path in (folder / "etcd-client.key", folder / "other.key", tmp_path / "host.key"):
        assert handed(path, folder) == path

"""What a page in a browser may ask and say."""

import pytest

from topoctl import exit_codes
from topoctl.main import run
from topod.protocol.requests import ReadLog
from topod.shell.gate import NEEDS, Need
from topotui.looking import LOOKS
from topotui.web.access import foreign, is_loopback, same_key

NAMES = {"localhost", "gpu-7"}


@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1:9000", "[::1]:8000", "10.1.2.3", "gpu-7:80", "GPU-7"]
)
def test_the_own_page_is_let_in_by_every_name_of_the_server(host: str) -> None:
    assert not foreign(host, None, NAMES, talks=False)
    assert not foreign(host, f"http://{host}", NAMES, talks=True)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", "", "[::1"]
)
def test_a_name_that_somebody_made_point_here_is_turned_away(host: str) -> None:
    assert foreign(host, None, NAMES, talks=False)
    assert foreign(host, f"http://{host}", NAMES, talks=True)


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "http://localhost:8001", "file://", "http://localhost"]
)
def test_another_page_does_not_drive_the_screen(origin: str | None) -> None:
    assert foreign("localhost:8000", origin, NAMES, talks=True)


def test_only_addresses_of_this_machine_are_loopback() -> None:
    inside = ("localhost", "127.0.0.1", "127.8.8.8", "::1")
    assert [one for one in (*inside, "0.0.0.0", "::", "10.0.0.1", "gpu-7", "") if is_loopback(one)] == list(
        inside
    )


@pytest.mark.parametrize("address", ["nope.invalid", "a..b"])
def test_an_address_that_is_none_is_refused_as_that(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("topotui.web.server", reason="textual-serve is not installed")
    assert run(["web", "--listen", address]) == exit_codes.USAGE
    assert f"--listen {address}: neither an address nor a name" in capsys.readouterr().err


def test_only_the_key_lets_in() -> None:
    assert same_key("k3y", "k3y")
    assert not any(same_key(given, "k3y") for given in (None, "", "k3", "k3y ", "\udcff"))


def test_a_screen_that_only_looks_asks_for_nothing_that_changes_anything() -> None:
    # The output of a job is its owner's to read, and reading it changes nothing.
    assert {kind for kind, need in NEEDS.items() if need in (Need.NOTHING, Need.VIEW)} | {ReadLog} == LOOKS


def test_what_a_page_says_becomes_packets_and_anything_else_is_refused() -> None:
    session = pytest.importorskip("topotui.web.session", reason="textual-serve is not installed")
    assert session.from_page('["stdin", "é"]') == (b"D\0\0\0\2\xc3\xa9", [])
    assert session.from_page('["ping", "7"]') == (b"", ["pong", "7"])
    packet, _ = session.from_page('["resize", {"width": 99999999, "height": -3}]')
    assert packet[5:] == b'{"type": "resize", "width": 1000, "height": 1}'
    for text in (
        "",
        "[]",
        "7",
        '["quit"]',
        '["stdin", 7]',
        '["resize", {"width": "9", "height": 3}]',
        "[" * 9000,
    ):
        with pytest.raises(ValueError, match=r"page|JSON|value|delimiter"):
            session.from_page(text)

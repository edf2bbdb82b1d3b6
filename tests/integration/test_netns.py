"""The network of the tests itself: what is cut does not arrive, in that direction alone, and what is healed does."""

import socket
import time

import pytest

from tests.netns import Network, network, thin_links


class Post:
    """A socket on each host, and who hears whom."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.sockets = {
            name: net.call(name, lambda: socket.socket(type=socket.SOCK_DGRAM)) for name in net.names
        }
        for name, end in self.sockets.items():
            end.bind((net.address(name), 7000))
            end.settimeout(0.3)

    def hears(self, to: str, source: str, tries: int = 1) -> int:
        """Return how many of so many messages arrive."""
        try:
            for _ in range(tries):
                self.sockets[source].sendto(b"x", (self.net.address(to), 7000))
        except OSError:
            return 0
        arrived = 0
        while arrived < tries:
            try:
                self.sockets[to].recv(10)
            except TimeoutError:
                break
            arrived += 1
        return arrived

    def close(self) -> None:
        for end in self.sockets.values():
            end.close()


def test_links_are_cut_one_way_or_both_and_healed() -> None:
    with network("head", "a", "b", needs=thin_links) as net:
        post = Post(net)
        assert (post.hears("head", "a"), post.hears("a", "head")) == (1, 1)
        net.cut("a")
        assert (post.hears("head", "a"), post.hears("a", "head"), post.hears("b", "head")) == (0, 0, 1)
        net.heal("a")
        net.cut("a", "head", leaves=True)
        assert (post.hears("head", "a"), post.hears("a", "head"), post.hears("b", "a")) == (1, 0, 1)
        net.heal()
        net.split(["head"], ["a", "b"])
        assert (post.hears("head", "a"), post.hears("a", "head"), post.hears("b", "a")) == (0, 0, 1)
        net.heal()
        net.unplug("b")
        assert (post.hears("b", "head"), post.hears("a", "head")) == (0, 1)
        net.heal()
        net.worsen("a", loss=0.5)
        assert 10 < post.hears("head", "a", tries=100) < 90
        assert 10 < post.hears("a", "head", tries=100) < 90
        net.heal()
        assert (post.hears("head", "a", 100), post.hears("a", "head", 100), post.hears("b", "a")) == (
            100,
            100,
            1,
        )
        net.worsen("a", delay=0.15)
        sent = time.monotonic()
        assert (post.hears("head", "a"), post.hears("a", "head"), post.hears("b", "head")) == (1, 1, 1)
        assert time.monotonic() - sent >= 0.3
        net.heal()
        assert (post.hears("head", "a"), post.hears("b", "a")) == (1, 1)
        listening = net.call("a", lambda: socket.create_server((net.address("a"), 7100)))
        assert net.connections("a", 7100) == {"listen": 1}
        listening.close()
        post.close()


def test_a_network_without_rights_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("tests.netns.PATH", "/nowhere")
    monkeypatch.delenv("TOPOD_REQUIRE_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"needs root|ip is not installed"), network("a"):
        raise AssertionError("made without programs")

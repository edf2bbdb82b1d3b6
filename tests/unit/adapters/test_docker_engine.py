"""An engine that cannot be talked to, in plain words: real sockets, nobody's Python."""

import socket
import threading
from pathlib import Path

import pytest

from topod.adapters.docker_engine import Engine, pull_error
from topod.errors import JobRejectedError, PullFailedError, RuntimeUnavailableError


def trouble(path: Path) -> str:
    engine = Engine(f"unix://{path}", call_timeout=0.2, slow_timeout=0.2, pull_timeout=0.2)
    with pytest.raises(RuntimeUnavailableError) as caught:
        engine.facts()
    engine.close()
    return caught.value.message.removeprefix("the container engine failed while asking for its version: ")


def test_an_engine_that_hangs_does_not_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "e"))
        listener.listen()
        assert trouble(tmp_path / "e") == "the engine does not answer"


def test_an_engine_that_is_away_is_not_running(tmp_path: Path) -> None:
    assert trouble(tmp_path / "e") == "the engine is not running: its socket is not there"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "e"))
    assert trouble(tmp_path / "e") == "the engine is not running: nothing listens on its socket"


def test_an_engine_that_dies_at_a_request_broke_the_connection_off(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "e"))
        listener.listen()

        def die() -> None:
            wire, _ = listener.accept()
            wire.recv(1)
            wire.close()

        thread = threading.Thread(target=die)
        thread.start()
        assert trouble(tmp_path / "e") == "the engine broke the connection off"
        thread.join(20)


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("manifest unknown", JobRejectedError),
        ("Get https://registry.test/v2/: dial tcp: lookup registry.test: no such host", PullFailedError),
        ("toomanyrequests: slow down", PullFailedError),
        ("write /var/lib/docker/tmp/x: no space left on device", RuntimeUnavailableError),
        ("dial unix /run/containerd/containerd.sock: connection refused", RuntimeUnavailableError),
    ],
)
def test_a_pull_that_fails_is_the_jobs_the_networks_or_the_engines(
    sentence: str, kind: type[Exception]
) -> None:
    found = pull_error("nosuch:1", sentence)
    assert type(found) is kind
    assert sentence in str(found)

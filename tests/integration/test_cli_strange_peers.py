"""topoctl against something on the socket that is not the topod it expects."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from topoctl.main import run
from topod.protocol.codec import PROTOCOL_VERSION, ReplyEnvelope, decode_request, encode
from topod.protocol.replies import AnyReply, Done, Failure, JobLines, Jobs


@contextmanager
def peer(socket: Path, answer: Callable[[bytes], bytes]) -> Iterator[None]:
    """Answer one request on the socket with the bytes that `answer` makes of it."""
    context = zmq.Context()
    wire = context.socket(zmq.REP)
    wire.bind(f"ipc://{socket}")

    def serve() -> None:
        wire.send(answer(wire.recv()))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
        thread.join(20)
    finally:
        context.destroy(linger=0)


def _reply(data: bytes, body: AnyReply) -> bytes:
    return encode(ReplyEnvelope(v=PROTOCOL_VERSION, id=decode_request(data).id, body=body))


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (lambda _: b"hello", 76, "error: not a message of protocol 1: "),
        (lambda _: b"\xff\x00", 76, "error: not a message of protocol 1: "),
        (lambda data: _reply(data, Done(text="x")), 76, "error: topod answered with Done, not JobLines"),
        (
            lambda _: encode(ReplyEnvelope(v=1, id="other", body=Jobs(jobs=[]))),
            76,
            "error: a reply to another request came on ",
        ),
        (
            lambda data: _reply(data, Failure(code="store-failed", text="the disk is full", exit_status=74)),
            74,
            "error: the disk is full",
        ),
    ],
)
def test_what_is_no_answer_is_told_with_its_status(
    answer: Callable[[bytes], bytes],
    status: int,
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    socket = tmp_path / "t.sock"
    with peer(socket, answer):
        assert run(["--socket", str(socket), "ps"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(text)
    assert "Traceback" not in err


def test_ps_notes_beside_the_jobs_what_does_not_work_for_topod(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = JobLines(jobs=[], troubles=["store: the disk is full"])
    with peer(tmp_path / "t.sock", lambda data: _reply(data, told)):
        assert run(["--socket", str(tmp_path / "t.sock"), "ps", "-o", "name"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "note: store: the disk is full\n")


def test_a_file_in_the_sockets_place_is_no_topod(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.sock").write_text("")
    assert run(["--socket", str(tmp_path / "t.sock"), "ps"]) == 69
    assert capsys.readouterr().err.startswith(f"error: no topod listens at {tmp_path}/t.sock\n")

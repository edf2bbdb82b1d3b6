"""`topoctl exec`: a command beside a running job."""

import os
import queue
import sys
import threading
from typing import Annotated

import typer

from topoctl import exit_codes
from topoctl.members import OnOption, RankOption, member_rank
from topoctl.session import JobArgument, ask, connect, job_ids, one_job
from topod.errors import DaemonUnavailableError, NotFoundError, UsageError
from topod.protocol.client import Client, RemoteError
from topod.protocol.replies import Done, ExecBegun, ExecOutput, Jobs
from topod.protocol.requests import Exec, ExecStop, ExecTalk, GetJob

EXAMPLES = """
topoctl exec 12 nvidia-smi
topoctl exec 12 -- sh -c 'ls -l /proc/1/fd'
topoctl exec -i 12 tar x < weights.tar
topoctl exec --rank 1 12 nvidia-smi
"""
WAIT_SECONDS = 1.0
INPUT_WAIT_SECONDS = 0.05
"""While there may be input, which must not wait for output."""
ASK_SECONDS = 20.0
INPUT_BYTES = 64 * 1024
_FLAGS = {"-i": "i", "--interactive": "i", "-t": "t", "--tty": "t", "-it": "it", "-ti": "it"}


def execute(
    ctx: typer.Context,
    job: JobArgument,
    command: Annotated[
        list[str], typer.Argument(metavar="[--] COMMAND...", help="What to run.", show_default=False)
    ],
    *,
    interactive: Annotated[
        bool, typer.Option("-i", "--interactive", help="Pass stdin on to the command.")
    ] = False,
    rank: RankOption = None,
    on: OnOption = "",
    tty: Annotated[bool, typer.Option("-t", "--tty", help="Refused: there is no terminal.")] = False,
) -> int:
    """Run a command beside a running job, in its container.

    It has the job's variables, folder, user, CPUs and GPUs; its stdout, stderr and exit code are passed
    through. It ends with the job, with Ctrl-C, and when nobody listens any more.
    """
    words = list(command)
    given = ""
    while words and words[0] in _FLAGS:  # also behind the job, as with `docker exec`
        given += _FLAGS[words.pop(0)]
    if words and words[0] == "--":
        words.pop(0)
    if tty or "t" in given:
        hint = "without -t; for a terminal: docker exec -it with the container that `topoctl show` names"
        raise UsageError("exec gives the command no terminal", hint=hint)
    if not words:
        raise UsageError("nothing to run: give a command", hint="topoctl exec 12 nvidia-smi")
    wants_input = interactive or "i" in given
    with connect(ctx) as client:
        (ident,) = job_ids(client, [job])
        rank = member_rank(one_job(ask(client, GetJob(job=ident), Jobs)), rank, on)
        request = Exec(job=ident, command=words, stdin=wants_input, rank=rank)
        begun = ask(client, request, ExecBegun, ASK_SECONDS)
        try:
            return _talk(client, begun.session, _Input() if wants_input else None)
        except (KeyboardInterrupt, BrokenPipeError):
            ask(client, ExecStop(session=begun.session), Done, ASK_SECONDS)
            raise
        except RemoteError as refused:
            if refused.code == NotFoundError.code:
                text = "topod was started anew, and the command ended with the old one"
                raise DaemonUnavailableError(text) from None
            raise


def _talk(client: Client, session: str, source: "_Input | None") -> int:
    """Pass input and output to and fro until the command is over; return its exit code."""
    pending = b""
    eof = source is None
    told_eof = eof
    while True:
        if source is not None and not pending and not eof:
            pending, eof = source.take()
        request = ExecTalk(
            session=session,
            data=pending,
            eof=eof and not told_eof,
            wait=WAIT_SECONDS if told_eof else INPUT_WAIT_SECONDS,
        )
        reply = ask(client, request, ExecOutput, ASK_SECONDS)
        told_eof = told_eof or (eof and reply.taken == len(pending))
        pending = pending[reply.taken :]
        for stream, data in ((sys.stdout, reply.stdout), (sys.stderr, reply.stderr)):
            if data:
                stream.buffer.write(data)
                stream.flush()
        if reply.ended:
            return exit_codes.NOT_STARTED if reply.exit_code is None else reply.exit_code


class _Input:
    """Stdin, read by a thread of its own: a terminal may be silent for long."""

    def __init__(self) -> None:
        self._pieces: queue.Queue[bytes] = queue.Queue(maxsize=16)
        threading.Thread(target=self._read, name="stdin", daemon=True).start()

    def take(self) -> tuple[bytes, bool]:
        """Return what has come, and whether that was all."""
        try:
            piece = self._pieces.get_nowait()
        except queue.Empty:
            return b"", False
        return piece, not piece

    def _read(self) -> None:
        while piece := os.read(0, INPUT_BYTES):
            self._pieces.put(piece)
        self._pieces.put(b"")

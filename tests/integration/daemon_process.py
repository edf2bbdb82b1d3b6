"""A real topod in a folder of its own, for tests that kill it, restart it and talk to it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from topod.errors import TopodError
from topod.model.job import JobSpec
from topod.model.request import Affinity, ResourceRequest
from topod.protocol.client import Client, events_socket
from topod.protocol.replies import AnyReply, Events, Jobs, LogChunk
from topod.protocol.requests import (
    AnyRequest,
    Cancel,
    GetJob,
    Hello,
    ListJobs,
    ReadEvents,
    ReadLog,
    Submit,
    WaitJob,
)
from topod.protocol.views import EventView, JobView

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0


class OwnProcess:
    """A process of topod's that a test starts and ends; `process` is None while there is none."""

    process: subprocess.Popen[bytes] | None

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as a service manager would and return its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(timeout=20)
        self.process = None
        return status


class Topod(OwnProcess):
    """One state folder and the topod process that works on it, if one does.

    `close` cancels every job first, so that no process of a job outlives the test.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "dgx1",
        runtime: str = "process",
        engine: str = "",
        log_level: str = "debug",
        environment: dict[str, str] | None = None,
        launch: Sequence[str] = (),
    ) -> None:
        """`host` empty: the machine itself; `environment` is added to that of topod.

        `launch` instead of the interpreter with the module.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.state_dir = folder / "state"
        self.socket = folder / "topod.sock"
        self.log = folder / "topod.log"
        self.host = host
        self.runtime = runtime
        self.engine = engine
        self.environment = environment or {}
        self.log_level = log_level
        self.launch = launch or (sys.executable, "-m", "topod.daemon")
        self.process = None
        self._plain = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def command(self) -> list[str]:
        """The command line that starts it."""
        options = {
            **({"--host": self.host} if self.host else {}),
            "--runtime": self.runtime,
            "--state-dir": str(self.state_dir),
            "--socket": str(self.socket),
            "--log-level": self.log_level,
            **({"--engine": self.engine} if self.engine else {}),
        }
        words = [word for option in options.items() for word in option]
        return [*self.launch, *words]

    def start(self, *more: str, wait: bool = True) -> Self:
        """Start topod and return when it answers; `more` are further options."""
        self._plain = not more
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TOPOD_")}
        environment |= self.environment
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, *more],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            self.until_it_answers()
        return self

    def until_it_answers(self) -> None:
        """Return when topod answers; an assertion fails when it ends before that."""
        process = self.process
        assert process is not None
        end = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < end:
            if events_socket(self.socket).is_socket() and self._answers(process.pid):
                return
            time.sleep(0.02)
        raise AssertionError(f"topod does not answer; its log:\n{self.log.read_text()}")

    def _answers(self, pid: int) -> bool:
        try:
            with Client(self.socket) as client:
                welcome = client.ask(Hello(), timeout=1.0)
        except Exception:  # noqa: BLE001 - any failure means: not yet
            return False
        return getattr(welcome, "pid", None) == pid

    def crashed(self, timeout: float = 60.0) -> bool:
        """Wait until topod ended by itself; False when it still runs after `timeout` seconds."""
        assert self.process is not None
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self.process = None
        return True

    def close(self) -> None:
        """Cancel what has not ended and stop topod."""
        if self.process is not None and not self._plain:
            self.kill()  # it may be one that is going to crash
        if self.process is None or self.process.poll() is not None:
            if not (self.state_dir / "state.db").exists():
                return
            self.start()
        with Client(self.socket) as client:
            left = _jobs(client.ask(ListJobs()))
            for job in left:
                with contextlib.suppress(TopodError):  # it may have ended meanwhile
                    client.ask(Cancel(jobs=[job.id]))
            for job in left:
                client.ask(WaitJob(job=job.id, timeout=20.0), timeout=30.0)
        self.stop()

    def ask(self, request: AnyRequest, timeout: float = 30.0) -> AnyReply:
        """Send one request on a connection of its own."""
        with Client(self.socket) as client:
            return client.ask(request, timeout=timeout)

    def submit(self, *command: str, token: str = "", **fields: object) -> JobView:
        """Queue a job; `gpus`, `priority` and `affinity` go into its request."""
        request = ResourceRequest(
            **{name: fields.pop(name) for name in ("gpus", "priority", "cpus") if name in fields},  # type: ignore[arg-type]  # test shorthand
            affinity=Affinity(str(fields.pop("affinity", "any"))),
        )
        spec = JobSpec(name=str(fields.pop("name", "t")), command=command, request=request, **fields)  # type: ignore[arg-type]  # test shorthand
        return _jobs(self.ask(Submit(spec=spec, token=token)))[0]

    def job(self, ident: int, timeout: float = 30.0) -> JobView:
        """Return one job."""
        return _jobs(self.ask(GetJob(job=ident), timeout))[0]

    def wait(self, ident: int, *states: str, timeout: float = 30.0) -> JobView:
        """Return the job once it is in one of the states or has ended."""
        return _jobs(self.ask(WaitJob(job=ident, states=list(states), timeout=timeout), timeout + 10))[0]

    def output(self, ident: int, attempt: int | None = None) -> str:
        """Return all that a job printed, once its log is complete."""
        data, offset = b"", 0
        while True:
            request = ReadLog(job=ident, attempt=attempt, offset=offset, wait=10.0)
            chunk = self.ask(request)
            assert isinstance(chunk, LogChunk)
            data, offset, attempt = data + chunk.data, chunk.next_offset, chunk.attempt
            if chunk.ended:
                return data.decode()

    def printed(self, ident: int) -> bytes:
        """Return the first part of what a job has printed so far."""
        chunk = self.ask(ReadLog(job=ident))
        assert isinstance(chunk, LogChunk)
        return chunk.data

    def cancel(self, ident: int) -> None:
        """Stop one job for good."""
        self.ask(Cancel(jobs=[ident]))

    def events(self) -> list[EventView]:
        """Return the host's whole story."""
        reply = self.ask(ReadEvents(since=0, limit=10_000))
        assert isinstance(reply, Events)
        return reply.events

    def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Return when the condition holds; fail with topod's log when it does not in time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"it did not come to that; topod's log:\n{self.log.read_text()}")
            time.sleep(0.05)


def _jobs(reply: AnyReply) -> list[JobView]:
    assert isinstance(reply, Jobs)
    return reply.jobs


def topod_in(folder: Path) -> Iterator[Topod]:
    """Yield a running topod for a fixture, and leave nothing behind."""
    with Topod(folder) as topod:
        yield topod.start()

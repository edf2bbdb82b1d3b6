"""Carries a schedule out on a real fleet in namespaces, and keeps the books: what was accepted, who was away."""

import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.cut_fleet import DEFIANT_FOR, FOR, CutFleet
from tests.fleet_soak.schedule import HEAD, Job, Step
from tests.integration.daemon_process import START_SECONDS, Topod
from tests.integration.fleet_process import CoordinatorProcess
from topod.daemon.lease import steady
from topod.errors import DaemonUnavailableError, TopodError
from topod.protocol.client import RemoteError
from topod.protocol.requests import Cancel, SetPriority

ASK_SECONDS = 2.0
Process = Topod | CoordinatorProcess


@dataclass
class Books:
    """What really happened."""

    accepted: dict[int, int] = field(default_factory=dict)
    """The fleet's number of each job of the schedule."""
    jobs: dict[int, Job] = field(default_factory=dict)
    """By the fleet's numbers."""
    cancelled: set[int] = field(default_factory=set)
    """By the fleet's numbers: somebody wanted them cancelled, whether or not that came in time."""
    away: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By host, when its topod was dead or stopped, by the steady clock."""
    faults: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    """What users were answered that no fault explains."""


class Stage:
    """One fleet and its users. `play` returns when the schedule is through and all is well again."""

    def __init__(self, folder: Path, hosts: Sequence[str]) -> None:
        self.fleet = CutFleet(folder, tuple(hosts))
        self.books = Books()
        self._asks: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._restarts = ThreadPoolExecutor(4)
        self._starting: dict[str, Future[None]] = {}
        self._gone: dict[str, float] = {}
        self._stopped: set[str] = set()
        self._end_at = float("inf")

    def play(self, steps: Sequence[Step], told: Callable[[float, Counter[str]], None], rest: float) -> None:
        """Do all that is scheduled and mend everything; wait at most `rest` seconds until all jobs ended."""
        user = threading.Thread(target=self._users, name="users")
        user.start()
        begin = time.monotonic()
        try:
            for step in steps:
                while (left := begin + step.at - time.monotonic()) > 0:
                    told(time.monotonic() - begin, self.books.faults)
                    time.sleep(min(left, 1.0))
                self._do(step)
        finally:
            self._end_at = time.monotonic() + rest
            self._mend()
            self._asks.put(None)
            user.join()
        self.fleet.until_ready()
        self.fleet.until(self._all_over, rest)

    def _all_over(self) -> bool:
        try:
            return not self.fleet.jobs()
        except TopodError:
            return False

    # --- users ----------------------------------------------------------------------------------------------

    def _users(self) -> None:
        while (ask := self._asks.get()) is not None:
            while True:
                try:
                    ask()
                    break
                except DaemonUnavailableError:
                    if time.monotonic() > self._end_at:
                        break
                    time.sleep(0.1)
                except RemoteError as error:
                    if "has ended" not in error.message:
                        self.books.refused.append(error.message)
                    break
                except Exception as error:  # noqa: BLE001 - the verdict tells it
                    self.books.refused.append(repr(error))
                    break

    def _submit(self, job: Job) -> None:
        work = DEFIANT_FOR if job.defiant else FOR
        view = self.fleet.job_of(
            work.format(seconds=job.seconds if not job.defiant else round(job.seconds), code=job.code),
            gpus=job.gpus,
            priority=job.priority,
            keep=job.keep,
            hosts=job.hosts,
            defiant=job.defiant,
            token=f"job {job.number}",
            timeout=ASK_SECONDS,
        )
        self.books.accepted[job.number] = view.id
        self.books.jobs[view.id] = job

    def _cancel(self, number: int) -> None:
        ident = self.books.accepted[number]
        self.books.cancelled.add(ident)
        self.fleet.ask(Cancel(jobs=[ident]), ASK_SECONDS)

    def _raise(self, number: int, priority: int) -> None:
        self.fleet.ask(SetPriority(job=self.books.accepted[number], priority=priority), ASK_SECONDS)

    # --- faults ---------------------------------------------------------------------------------------------

    def _do(self, step: Step) -> None:
        match step.what:
            case "submit":
                job = step.job
                assert job is not None
                self._asks.put(lambda: self._submit(job))
            case "cancel":
                self._asks.put(lambda: self._cancel(step.number))
            case "priority":
                self._asks.put(lambda: self._raise(step.number, step.priority))
            case _:
                self._fault(step.what, step.target)

    def _fault(self, what: str, target: str) -> None:
        net = self.fleet.net
        match what:
            case "kill":
                self._signal(target, signal.SIGKILL)
            case "stop":
                self._signal(target, signal.SIGSTOP)
            case "start":
                self._start(target)
                return
            case "go-on":
                self._go_on(target)
                return
            case "cut" | "cut-in" | "cut-out":
                net.cut(target, arrives=what == "cut-out", leaves=what == "cut-in")
            case "worsen":
                net.worsen(target, loss=0.2, rate="128kbit", delay=0.1)
            case _:
                net.heal(target)
                return
        self.books.faults[what] += 1

    def _process(self, name: str) -> Process:
        return self.fleet.coordinator if name == HEAD else self.fleet.hosts[name]

    def _signal(self, name: str, number: signal.Signals) -> None:
        self._started(name)
        process = self._process(name)
        assert process.process is not None
        self._gone[name] = steady()
        if number is signal.SIGKILL:
            process.kill()
        else:
            self._stopped.add(name)
            process.process.send_signal(number)

    def _go_on(self, name: str) -> None:
        process = self._process(name).process
        if name in self._stopped and process is not None:
            self._stopped.discard(name)
            process.send_signal(signal.SIGCONT)
            self._back(name)

    def _start(self, name: str) -> None:
        def work() -> None:
            self._process(name).start()
            self._back(name)

        self._starting[name] = self._restarts.submit(work)

    def _started(self, name: str) -> None:
        """Wait for a start that is under way."""
        starting = self._starting.pop(name, None)
        if starting is not None:
            starting.result(2 * START_SECONDS)

    def _back(self, name: str) -> None:
        self.books.away.setdefault(name, []).append((self._gone.pop(name), steady()))

    def _mend(self) -> None:
        """Bring back all that is away, and heal every link."""
        self.fleet.net.heal()
        for name in (HEAD, *self.fleet.hosts):
            self._go_on(name)
            self._started(name)
            if self._process(name).process is None:
                self._start(name)
                self._started(name)
        self._restarts.shutdown()

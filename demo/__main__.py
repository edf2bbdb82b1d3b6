"""Run the demo: every line that starts with `$` is a command that was really run."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from demo.image import IMAGE, find_image, remove_containers, remove_image
from topod.adapters.docker_engine import find_engine
from topod.errors import TopodError
from topod.protocol.client import Client
from topod.protocol.replies import Events, Jobs, Welcome
from topod.protocol.requests import Cancel, Hello, ListJobs, ReadEvents, WaitJob

HOST = "dgx1"
BIN = Path(sys.executable).parent
LOOP = "while :; do sleep 0.1; done"
TRAINER = f'trap "echo checkpoint saved; exit 0" TERM; echo "training on GPUs $TOPOD_GPU_INDICES"; {LOOP}'
SERVER = f'trap "exit 0" TERM; echo "serving chat-70b on GPUs $TOPOD_GPU_INDICES"; {LOOP}'
BATCH = (("train-a", 2), ("train-b", 1), ("train-c", 2), ("train-d", 1), ("train-e", 2))


class Demo:
    """One topod in a temporary folder, and the commands that are shown."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "topod.sock"
        self.environment = {
            **os.environ,
            "TOPOD_SOCKET": str(self.socket),
            "NO_COLOR": os.environ.get("NO_COLOR", ""),
        }
        if not self.environment["NO_COLOR"]:
            del self.environment["NO_COLOR"]
        self.image: list[str] = []
        self.engine: str | None = None
        self.command: list[str] = []
        self.handles: list[str] = []
        self.daemon: subprocess.Popen[bytes] | None = None
        self.client = Client(self.socket)

    def start(self) -> None:
        """Choose the runtime and start topod on the emulated host."""
        self.engine = find_engine()
        runtime, how = "process", "no container engine answers here"
        if self.engine is not None:
            image, how = find_image(self.engine)
            if image is not None:
                runtime, self.image = "docker", ["--image", image]
        print(f"topod demo: an EMULATED {HOST} (8 GPUs; none of this machine's devices is used)")
        print(f"runtime: {runtime} ({how})\n")
        self.command = [str(BIN / "topod"), "--host", HOST, "--state-dir", str(self.folder / "state")]
        self.command += ["--socket", str(self.socket), "--runtime", runtime]
        if runtime == "docker" and self.engine is not None:
            self.command += ["--engine", self.engine]
        self._start_daemon()

    def _start_daemon(self) -> None:
        with (self.folder / "topod.log").open("ab") as log:
            # In a session of its own: Ctrl-C is for the demo, which then ends the jobs and topod in order.
            self.daemon = subprocess.Popen(
                self.command, stderr=log, stdout=log, env=self.environment, start_new_session=True
            )
        self._await_ready()

    def _await_ready(self) -> None:
        assert self.daemon is not None
        until = time.monotonic() + 10
        while time.monotonic() < until and self.daemon.poll() is None:
            if self.socket.is_socket():
                answer = self.client.ask(Hello(), timeout=10)
                assert isinstance(answer, Welcome)
                return
            time.sleep(0.02)
        raise SystemExit(f"error: topod did not start: {(self.folder / 'topod.log').read_text()[-500:]}")

    def show(self, *arguments: str, quiet: bool = False) -> str:
        """Run one topoctl command, print it and what it answered, and return the answer."""
        words = [
            word if word.replace("-", "").isalnum() else repr(word)
            for word in arguments
            if word not in self.image
        ]
        if not quiet:
            print("$ topoctl " + " ".join(words if len(" ".join(words)) < 110 else [*words[:-1], "'...'"]))
        done = subprocess.run(
            [str(BIN / "topoctl"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if not quiet:
            print(done.stdout + done.stderr)
        return done.stdout.strip()

    def submit(self, script: str, *flags: str, quiet: bool = False) -> int:
        """Submit a job that runs a shell script and return its id."""
        words = ["submit", "--parsable", *flags, *self.image, "--", "sh", "-c", script]
        if quiet:
            return int(self.show(*words, quiet=True))
        shown = " ".join(["submit", *flags, "--", "serve", "chat-70b"])
        print(f"$ topoctl {shown}")
        job = int(self.show(*words, quiet=True))
        print(f"Submitted job {job}\n")
        return job

    def wait_running(self, job: int) -> None:
        """Return when the job runs."""
        answer = self.client.ask(WaitJob(job=job, states=["running"], timeout=30), timeout=40)
        assert isinstance(answer, Jobs)
        if answer.jobs[0].state != "running":
            raise SystemExit(f"error: job {job} is {answer.jobs[0].state}: {answer.jobs[0].reason}")

    def first_line(self, job: int) -> str:
        """Return the first line that a job printed, as soon as there is one."""
        for _ in range(100):
            text = self.show("logs", str(job), quiet=True)
            if text:
                return text.splitlines()[0]
            time.sleep(0.05)
        return "(nothing printed)"

    def timing(self, job: int) -> str:
        """Say how long the job took from submit to running, phase by phase, from the event log."""
        answer = self.client.ask(ReadEvents(since=-500))
        assert isinstance(answer, Events)
        mine = {event.name: event.at for event in answer.events if event.job == job}
        stops = [e.at for e in answer.events if e.name == "job.preempted" and e.at >= mine["job.placed"]]
        parts = [f"decided after {1000 * (mine['job.placed'] - mine['job.submitted']):.0f} ms"]
        if stops:
            parts.append(f"victims gone after {1000 * (max(stops) - mine['job.submitted']):.0f} ms")
        total = mine["job.started"] - mine["job.submitted"]
        return f"from submit to running: {1000 * total:.0f} ms ({', '.join(parts)})"

    def run(self) -> None:
        """Show one preemption from beginning to end."""
        print("Five low-priority jobs fill the host:\n")
        for name, gpus in BATCH:
            self.submit(
                TRAINER, "--name", name, "--priority", "low", "--gpus", str(gpus), "--grace", "5s", quiet=True
            )
        for job in range(1, len(BATCH) + 1):
            self.wait_running(job)
        self.show("topo")
        print(
            "A high-priority request for 4 GPUs with a ring of NVLinks: the plan, before anything happens\n"
        )
        request = ("--priority", "high", "--affinity", "nvlink", "--gpus", "4")
        self.show("plan", *request)
        job = self.submit(SERVER, "--name", "serve", *request)
        self.wait_running(job)
        print(f"job {job} says: {self.first_line(job)}")
        print(self.timing(job) + "\n")
        print("The victims were stopped and wait in the queue:\n")
        self.show("ps")
        self.show("events", "-n", "14")
        self.show("topo")
        print("The peak is over: the high-priority job ends, the victims run again\n")
        self.show("cancel", str(job))
        answer = self.client.ask(ListJobs())
        assert isinstance(answer, Jobs)
        for view in answer.jobs:
            if view.id != job:
                self.wait_running(view.id)
        self.show("ps", "-a")

    def clean_up(self) -> None:
        """End every job, then topod, and remove what was made."""
        if self.daemon is not None:
            if self.daemon.poll() is not None:
                self._start_daemon()
            try:
                self._await_ready()
                self._end_jobs()
            finally:
                self.daemon.send_signal(signal.SIGTERM)
                self.daemon.wait(timeout=10)
        self.client.close()
        if self.engine is not None and self.image:
            remove_containers(self.engine, self.handles)
        if self.engine is not None and self.image == ["--image", IMAGE]:
            remove_image(self.engine)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_jobs(self) -> None:
        client = Client(self.socket)  # a new one: an interrupted question leaves the old one waiting
        answer = client.ask(ListJobs())
        assert isinstance(answer, Jobs)
        ids = [view.id for view in answer.jobs]
        self.handles = [view.handle for view in answer.jobs if view.handle is not None]
        client.ask(Cancel(jobs=ids, by="demo"))
        for ident in ids:
            client.ask(WaitJob(job=ident, timeout=15), timeout=20)
        client.close()


def main() -> int:
    """Run the demo, clean up after it whatever happens, and return the exit status."""
    began = time.monotonic()
    demo = Demo(Path(tempfile.mkdtemp(prefix="topod-demo-")))
    status = 0
    try:
        try:
            demo.start()
            demo.run()
        finally:
            # Cleaning up takes a few seconds at most and must not be cut short.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            demo.clean_up()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        status = 130
    except (TopodError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    if status == 0:
        print(f"cleaned up; the whole demo took {time.monotonic() - began:.1f} s", flush=True)
    return status


if __name__ == "__main__":
    # Not sys.exit: what could not be written to a closed or full stdout is not tried again.
    os._exit(main())

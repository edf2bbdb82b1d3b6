"""topod with a real engine under faults, and witnesses that are not topod: every container tells of itself.

Each job writes one line when its command begins, and takes a kernel lock for each of its GPUs that only the
end of its processes gives back. So a command that ran twice and a GPU with two jobs show whatever topod
believes.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Self

import docker

from tests.engine import PrivateEngine
from tests.integration.daemon_process import Topod
from topod.adapters.docker_spec import JOB_LABEL
from topod.model.cpuset import CpuSet
from topod.model.job import Mount
from topod.protocol.replies import Jobs
from topod.protocol.requests import ListJobs
from topod.protocol.views import JobView

CLAIM = """
echo "$TOPOD_JOB_ID.$TOPOD_ATTEMPT" >> /runs/begun
for gpu in $(echo "$TOPOD_GPU_INDICES" | tr , ' '); do
    eval "exec $((gpu + 2))>>/runs/gpu-$gpu"
    /usr/bin/flock -n $((gpu + 2)) || echo "job $TOPOD_JOB_ID on GPU $gpu" >> /runs/doubled
done
"""
UNTIL_RELEASED = "until [ -e /runs/release ]; do sleep 0.1; done"
"""A job that ends when the test says so, and dies of SIGTERM at once."""
DEAF = f"trap 'echo heard >> /runs/heard' TERM; {UNTIL_RELEASED}"
"""The same, but SIGTERM does not end it."""

FLOCK = tuple(
    Mount(source=str(Path(folder).resolve()), target=folder, read_only=True)
    for folder in ("/usr", "/lib", "/lib64")
)
"""The machine's own flock with its libraries: busybox has none."""


class FaultSite:
    """An emulated DGX-1 with one engine; `runs` is the folder that all containers write to."""

    def __init__(self, folder: Path, engine: PrivateEngine, *flags: str) -> None:
        """`folder` gets `runs`, and topod's own files in `t`; `flags` go to topod."""
        self.engine = engine
        self.runs = folder / "runs"
        self.runs.mkdir(parents=True)
        self.topod = Topod(folder / "t", runtime="docker", engine=engine.base_url)
        # Not on the disk that a test fills or takes away.
        self.topod.log = folder / "topod.log"
        self._flags = flags

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self.engine.resume()
        try:
            self.topod.close()
        except Exception:  # a topod that cannot even cancel must not outlive the test
            self.topod.kill()
            raise

    def start(self) -> None:
        self.topod.start(*self._flags)

    def release(self) -> None:
        """Let the jobs that wait for it come to their end."""
        (self.runs / "release").touch()

    def submit(self, script: str = UNTIL_RELEASED, **fields: object) -> int:
        fields = {"gpus": 1, "priority": 100, "grace_seconds": 20.0, "image": self.engine.image} | fields
        mounts = (Mount(source=str(self.runs), target="/runs"), *FLOCK)
        return self.topod.submit("sh", "-c", CLAIM + script, mounts=mounts, **fields).id  # type: ignore[arg-type]  # test shorthand

    def begun(self, job: int, attempt: int = 1) -> None:
        """Return once the command of that attempt has begun."""
        self.topod.until(lambda: f"{job}.{attempt}" in self.lines(), 60)

    def lines(self, name: str = "begun") -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return (self.runs / name).read_text().split()
        return []

    def log_says(self, text: str, since: int = 0) -> bool:
        """Say whether topod's log has the text after that many bytes."""
        return text in self.topod.log.read_bytes()[since:].decode(errors="replace")

    def await_all(self, jobs: Iterable[int], state: str, seconds: float = 90) -> dict[int, JobView]:
        """Return the jobs once all are in the state; meanwhile look that none shares anything."""
        jobs = list(jobs)
        views: dict[int, JobView] = {}

        def there() -> bool:
            self.look()
            views.update({job: self.topod.job(job) for job in jobs})
            return all(view.state == state for view in views.values())

        self.topod.until(there, seconds)
        return views

    def look(self) -> None:
        """No two jobs that run share a GPU or a pinned CPU, by what topod says."""
        reply = self.topod.ask(ListJobs())
        assert isinstance(reply, Jobs)
        running = [job for job in reply.jobs if job.state in ("running", "stopping")]
        for one, other in combinations(running, 2):
            assert not set(one.gpu_uuids) & set(other.gpu_uuids), f"jobs {one.id} and {other.id}"
            assert not CpuSet.parse(one.cpu_list) & CpuSet.parse(other.cpu_list), (one.id, other.id)

    def check(self, jobs: Iterable[int]) -> None:
        """Everything ended well: each start happened once, no GPU had two jobs, no container is left."""
        assert not (self.runs / "doubled").exists(), (self.runs / "doubled").read_text()
        begun = Counter(self.lines())
        assert not [line for line, times in begun.items() if times > 1], begun
        for job in jobs:
            view = self.topod.job(job)
            attempts = [int(line.split(".")[1]) for line in begun if line.startswith(f"{job}.")]
            assert all(1 <= attempt <= view.attempt for attempt in attempts), (view, attempts)
            # One that is stopped at once may not have come to its first line.
            assert len(attempts) <= view.starts
            assert view.state != "succeeded" or view.attempt in attempts
        self.topod.until(lambda: not self.containers(jobs), 60)

    def containers(self, jobs: Iterable[int]) -> list[str]:
        """Return the names of the jobs' containers, as the engine lists them."""
        found: list[str] = []
        with contextlib.closing(docker.APIClient(base_url=self.engine.base_url, timeout=60)) as client:
            for job in jobs:
                rows = client.containers(all=True, filters={"label": f"{JOB_LABEL}={job}"})
                # Several topods may share the engine: only those that mount our folder are ours.
                ours = [row for row in rows if any(m["Source"] == str(self.runs) for m in row["Mounts"])]
                found += [row["Names"][0].removeprefix("/") for row in ours]
        return found

    def handle(self, job: int) -> str:
        """Return the name of the job's present container."""
        handle = self.topod.job(job).handle
        assert handle is not None
        return handle

    def docker(self) -> docker.APIClient:
        """Return a client of the engine, as a person at the host has it; the caller closes it."""
        return docker.APIClient(base_url=self.engine.base_url, timeout=60)

    def first_process(self, handle: str) -> int:
        """Return the host's number of the container's first process."""
        with contextlib.closing(self.docker()) as client:
            return int(client.inspect_container(handle)["State"]["Pid"])


def kill(pid: int, number: int) -> None:
    """Signal one process, which may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)

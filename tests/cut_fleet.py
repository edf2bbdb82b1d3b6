"""A fleet whose hosts are namespaces of a network that can be cut, with terms of seconds; and what its jobs tell.

Jobs write when they begin and end, by the steady clock of the machine that all of them share, and hold a lock for
themselves and one for each GPU that only the end of their last process gives back: so what ran twice at a time,
or on another's GPU, shows whatever topod believes.
"""

import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.integration.fleet_process import Fleet
from tests.netns import Network, network, thin_links
from tests.short_terms import GRACE_SECONDS, LEASE_SECONDS
from topod.model.job import JobSpec, OnHostLost
from topod.model.request import ResourceRequest
from topod.protocol.replies import Jobs
from topod.protocol.requests import Submit
from topod.protocol.views import JobView

PORT = 7461
HEAD = "head"
# Shell, and of that only what forks nothing: hundreds of these run at a time.
TELL = r"""
runs={runs}; all=(${{TOPOD_HOSTS//,/ }}); host=${{all[$TOPOD_HOST_RANK]}}
me="$TOPOD_FLEET_JOB $TOPOD_HOST_RANK $host $TOPOD_JOB_ID $TOPOD_ATTEMPT $$"
say() {{ read -r up _ </proc/uptime; echo "$me $1 $up $TOPOD_GPU_INDICES" >>"$runs/witness"; }}
say begins
exec {{own}}>"$runs/job-$TOPOD_FLEET_JOB-$TOPOD_HOST_RANK"
flock -n "$own" || say twice
for gpu in ${{TOPOD_GPU_INDICES//,/ }}; do
  exec {{lock}}>"$runs/gpu-$host-$gpu"
  flock -n "$lock" || say shares
done
trap 'say ends' EXIT
"""
OBEY = "trap 'exit 0' TERM\n"
DEFY = "trap '' TERM\n"
UNTIL = """while [ ! -e "$runs/{flag}" ]; do sleep 0.1; done; say done"""
"""Work that is done when `Witness.release` says so."""
FOR = """sleep {seconds} & wait $!; say done; exit {code}"""
DEFIANT_FOR = """end=$((SECONDS + {seconds} + 1))
while [ $SECONDS -lt $end ]; do sleep 0.2; done; say done; exit {code}"""
_LINE = re.compile(r"(\d+) (\d+) (\S+) (\d+) (\d+) (\d+) (\w+) ([\d.]+) ?(.*)")


@dataclass(frozen=True, slots=True)
class Told:
    """One line of a job: `begins`, `done` (it came to its natural end), `ends`, `twice` or `shares`."""

    job: int
    rank: int
    host: str
    local: int
    attempt: int
    pid: int
    what: str
    at: float
    """Seconds since the machine booted."""
    gpus: str

    @property
    def run(self) -> tuple[int, int, str, int, int]:
        """What names one run of one command."""
        return (self.job, self.rank, self.host, self.local, self.attempt)


class Witness:
    """What the jobs of a fleet told, in a folder that no part of topod writes to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def told(self, *what: str, job: int | None = None, host: str | None = None) -> list[Told]:
        """Return the lines of those kinds, of all jobs or of one."""
        file = self.folder / "witness"
        lines = file.read_text().splitlines() if file.exists() else []
        return [
            told
            for told in map(_read, lines)
            if (not what or told.what in what) and job in (None, told.job) and host in (None, told.host)
        ]

    def wrong(self) -> list[str]:
        """Return what must never be: a job that runs twice at a time, a GPU used by two, a run that began twice."""
        found = [str(told) for told in self.told("twice", "shares")]
        begun = [told.run for told in self.told("begins")]
        return found + [f"begun twice: {run}" for run in sorted(set(begun)) if begun.count(run) > 1]

    def release(self, flag: str) -> None:
        """Let the jobs end that wait for this flag."""
        (self.folder / flag).touch()


def _read(line: str) -> Told:
    match = _LINE.fullmatch(line)
    assert match is not None, line
    job, rank, host, local, attempt, pid, what, at, gpus = match.groups()
    return Told(int(job), int(rank), host, int(local), int(attempt), int(pid), what, float(at), gpus)


class CutFleet(Fleet):
    """A fleet in a network of its own; `net` cuts, worsens and heals the links of its hosts."""

    def __init__(self, folder: Path, hosts: tuple[str, ...], kind: str = "dgx1") -> None:
        self._left = ExitStack()
        self.net: Network = self._left.enter_context(network(HEAD, *hosts, needs=thin_links))
        listen = f"tcp://{self.net.address(HEAD)}:{PORT}"
        super().__init__(folder, hosts, kind, lease=LEASE_SECONDS, listen=listen, launch=self._in_network)
        self.told = Witness(self.runs)

    def _in_network(self, name: str, module: str) -> Sequence[str]:
        return (*self.net.prefix(name), sys.executable, "-m", "tests.short_terms", module)

    def __enter__(self) -> Self:
        try:
            return super().__enter__()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        with self._left:
            super().__exit__()

    def job_of(
        self,
        work: str,
        *,
        gpus: int = 1,
        priority: int = 500,
        keep: bool = False,
        hosts: int = 1,
        select: Sequence[str] = (),
        defiant: bool = False,
        token: str = "",
        timeout: float = 5.0,
    ) -> JobView:
        """Queue a job that tells of itself and then does the work."""
        command = TELL.format(runs=self.runs) + (DEFY if defiant else OBEY) + work
        spec = JobSpec(
            name="t",
            command=("bash", "-c", command),
            request=ResourceRequest(gpus=gpus, priority=priority),
            grace_seconds=GRACE_SECONDS,
            on_host_lost=OnHostLost.KEEP if keep else OnHostLost.REQUEUE,
        )
        reply = self.ask(Submit(spec=spec, token=token, hosts=hosts, select=list(select)), timeout)
        assert isinstance(reply, Jobs)
        return reply.jobs[0]

    def standing(self) -> dict[str, str]:
        """Return the state of each host."""
        return {host.name: host.state for host in self.host_views()}

    def until_ready(self, *names: str) -> None:
        """Wait until these hosts, or all, are heard and take work."""
        wanted = names or tuple(self.hosts)
        self.until(lambda: all(self.standing().get(name) == "ready" for name in wanted), 90.0)

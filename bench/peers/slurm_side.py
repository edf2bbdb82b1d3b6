"""A real Slurm of its own: one controller and a node for each host, in a folder, on loopback only.

GPUs are device nodes that lead nowhere. What Slurm may know of the hardware it is told: NUMA nodes as sockets
(as with `numa_node_as_socket`), which of their cores each GPU is beside, and how many NVLinks join each pair.
Timing is set for low latency, the order of victims as `preempt_reorder_count=8,strict_order`.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.peers.scenario import Scenario, tables_of
from bench.peers.sides import Answer, until
from topod.errors import UsageError
from topod.model.links import LinkClass

PROGRAMS: Final = (
    "slurmctld",
    "slurmd",
    "munged",
    "mungekey",
    "sbatch",
    "squeue",
    "scontrol",
    "scancel",
    "sinfo",
)
CONTROLLER, FIRST_NODE = 26817, 27000
TIMING: Final = "sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0"
CONFIGURATION: Final = """\
ClusterName=peers
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort={CONTROLLER}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SchedulerType=sched/backfill
SchedulerParameters={timing},preempt_reorder_count=8,preempt_strict_order
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
MinJobAge=300
"""
PARTITIONS: Final = """\
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=CANCEL OverSubscribe=NO MaxTime=INFINITE
PartitionName=high Nodes=ALL Default=NO PriorityTier=9 PreemptMode=CANCEL OverSubscribe=NO MaxTime=INFINITE
"""
WORK: Final = """#!/bin/sh
trap 'kill $! 2>/dev/null; exit 0' TERM
date +%s.%N > {out}/$SLURM_JOB_ID.new; mv {out}/$SLURM_JOB_ID.new {out}/$SLURM_JOB_ID.line
sleep 86400 & wait
"""


def check_installed() -> None:
    """Raise `UsageError` where Slurm is not there."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing or os.geteuid() != 0:
        raise UsageError(
            f"a real Slurm is needed, as root; not there: {', '.join(missing) or 'root'}",
            hint="on Debian: apt-get install slurm-wlm munge",
        )


class SlurmSide:
    """Slurm; with `bind` the GPUs are asked for on one socket, else a number of them."""

    def __init__(
        self, folder: Path, hosts: Sequence[str], *, bind: bool, running: "SlurmSide | None" = None
    ) -> None:
        """`running`: the same Slurm, asked in another way."""
        self.name = "Slurm, GPUs of one socket asked" if bind else "Slurm, a number of GPUs asked"
        self._bind = bind
        self._folder = folder
        self._hosts = {host: f"g{number}" for number, host in enumerate(hosts, 1)}
        self._owner = running is None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._env = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
        }

    def __enter__(self) -> Self:
        if self._owner:
            self._write()
            try:
                self._launch()
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owner:
            with contextlib.suppress(subprocess.CalledProcessError, TimeoutError):
                self.clear()
            self._end()

    # --- a cluster of its own -------------------------------------------------------------------------------

    def _write(self) -> None:
        """Write the configuration, and make the devices."""
        folder, name = self._folder, socket.gethostname()
        for part in ("state", "munge", "out", "dev"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        (folder / "work.sh").write_text(WORK.format(out=folder / "out"), encoding="ascii")
        lines = []
        gres = []
        for number, (host, node) in enumerate(self._hosts.items(), 1):
            tables = tables_of(host)
            topology = tables.topology
            nodes = [one for one in topology.numa_nodes if len(one.cpus)]
            cores = min(len(one.cpus) for one in nodes)
            lines.append(
                f"NodeName={node} NodeHostname={name} NodeAddr=127.0.0.1 Port={FIRST_NODE + number} "
                f"CPUs={cores * len(nodes)} Boards=1 SocketsPerBoard={len(nodes)} CoresPerSocket={cores} "
                f"ThreadsPerCore=1 RealMemory=4000 Gres=gpu:{tables.count} State=UNKNOWN"
            )
            (folder / f"spool.{node}").mkdir(exist_ok=True)
            order = [one.id for one in nodes]
            for gpu in topology.gpus:
                device = folder / "dev" / f"{node}-{gpu.index}"
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
                links = ",".join(
                    "-1" if link is None else str(link.lanes if link.kind is LinkClass.NVLINK else 0)
                    for link in topology.links[gpu.index]
                )
                first = cores * order.index(gpu.numa_node or 0)
                gres.append(
                    f"NodeName={node} Name=gpu File={device} Cores={first}-{first + cores - 1} Links={links}"
                )
        settings = CONFIGURATION.format(folder=folder, name=name, CONTROLLER=CONTROLLER, timing=TIMING)
        text = "\n".join([settings, *lines, PARTITIONS])
        (folder / "slurm.conf").write_text(text, encoding="ascii")
        (folder / "gres.conf").write_text("\n".join(gres) + "\n", encoding="ascii")
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n", encoding="ascii")

    def _launch(self) -> None:
        munge = self._folder / "munge"
        munge.chmod(0o755)
        self._run("mungekey", "--create", f"--keyfile={munge}/key")
        self._begin(
            "munged", "--foreground", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key",
            f"--log-file={munge}/log", f"--pid-file={munge}/pid", f"--seed-file={munge}/seed",
        )  # fmt: skip
        until((munge / "socket").exists, "munged")
        self._begin("slurmctld", "-D", "-c")
        for node in self._hosts.values():
            self._begin("slurmd", "-D", "-N", node)
        until(self._ready, "Slurm's nodes")

    def _ready(self) -> bool:
        done = subprocess.run(
            ["sinfo", "-h", "-N", "-p", "low", "-o", "%t"],
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split() == ["idle"] * len(self._hosts)

    def _begin(self, *words: str) -> None:
        with (self._folder / f"{words[0]}.out").open("ab") as out:
            self._processes.append(
                subprocess.Popen(words, env=self._env, stdout=out, stderr=out, start_new_session=True)
            )

    def _end(self) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run(self, *words: str) -> str:
        done = subprocess.run(words, env=self._env, capture_output=True, text=True, check=True)
        return done.stdout

    # --- as a side ------------------------------------------------------------------------------------------

    def start(self, host: str, sizes: Sequence[int]) -> list[str]:
        jobs = [self._submit(host, "low", [f"--gres=gpu:{size}", "-c1"]) for size in sizes]
        until(lambda: all(self._line(job).exists() for job in jobs), f"{len(jobs)} jobs of Slurm")
        return jobs

    def holds(self, job: str) -> list[int]:
        told = self._run("scontrol", "-o", "-d", "show", "job", job)
        match = re.search(r"GRES=gpu\S*\(IDX:([\d,-]+)\)", told)
        assert match is not None, told
        found: list[int] = []
        for part in match[1].split(","):
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
        return found

    def stop(self, jobs: Sequence[str]) -> None:
        if jobs:
            self._run("scancel", *jobs)
            until(lambda: not set(jobs) & set(self._live()), "jobs that Slurm ends")

    def ask(self, scenario: Scenario, jobs: Sequence[str]) -> Answer:
        many = scenario.gpus
        bound = [f"--gpus={many}", f"--gpus-per-socket={many}", "--sockets-per-node=1"]
        begun = time.time()
        job = self._submit(
            scenario.host, "high", [*(bound if self._bind else [f"--gres=gpu:{many}"]), f"-c{many}"]
        )
        line = self._line(job)
        until(line.exists, f"{scenario.name}: the job's first line")
        live = self._live()
        return Answer(
            gpus=self.holds(job),
            victims=[place for place, name in enumerate(jobs) if name not in live],
            seconds=float(line.read_text(encoding="ascii")) - begun,
        )

    def submits(self, host: str, many: int) -> list[float]:
        begun = time.perf_counter()
        for _ in range(many):
            self._submit(host, "low", ["--gres=gpu:8", "-c1"])
        return [many / (time.perf_counter() - begun)]

    def clear(self) -> None:
        self.stop(self._live())

    def _submit(self, host: str, partition: str, asked: Sequence[str]) -> str:
        where = ("-p", partition, "-w", self._hosts[host], "-N1", "-n1", "-o", "/dev/null")
        return self._run("sbatch", "--parsable", *where, *asked, str(self._folder / "work.sh")).strip()

    def _line(self, job: str) -> Path:
        return self._folder / "out" / f"{job}.line"

    def _live(self) -> list[str]:
        return self._run("squeue", "-h", "-o", "%i").split()

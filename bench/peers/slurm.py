"""A real Slurm on this machine alone: one slurmctld and some slurmd on loopback, with GPUs that do not exist.

All that it writes lies in the folder that it is given, its keys too; what it starts it ends by pid. It
touches no Slurm or munge that is installed as a service.
"""

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.peers.peer import HIGH, Ask, run_quietly, until, write_script
from tests.integration.fleet_process import free_port
from topod.flextopo.affinity import socket_of
from topod.model.links import LinkClass
from topod.model.request import Affinity
from topod.model.topology import Topology

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "sinfo")
PACKAGES = ("munge", "slurm-wlm")


TAKE_CARE = ("preempt_reorder_count=8", "preempt_strict_order")
TAKE_NO_TIME = ("batch_sched_delay=0", "sched_min_interval=10000", "sched_interval=1", "bf_interval=1")
"""Seconds, but for `sched_min_interval`: microseconds."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a Slurm is set."""

    name: str
    together: bool
    """Ask for all GPUs on one socket."""
    lines: tuple[str, ...]
    """Of slurm.conf, beside what all have."""


PLAIN = Settings("Slurm as it comes", together=False, lines=())
BEST = Settings(
    "Slurm at its best",
    together=True,
    lines=(f"SchedulerParameters={','.join((*TAKE_CARE, *TAKE_NO_TIME))}",),
)


def missing() -> list[str]:
    """Return which programs are not installed."""
    return [name for name in PROGRAMS if found(name) is None]


def found(name: str) -> str | None:
    """Return where a program is; daemons are often not in a user's PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def version() -> str:
    return run_quietly([found("slurmctld") or "slurmctld", "-V"], {}).strip()


class Slurm:
    """One cluster; a `Peer`."""

    def __init__(self, folder: Path, topology: Topology, hosts: Sequence[str], settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self._hosts = tuple(hosts)
        self._script, self.begun = write_script(folder)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        for name in ("state", "log", "munge"):
            (folder / name).mkdir()
        (folder / "munge" / "key").write_bytes(os.urandom(128))
        (folder / "munge" / "key").chmod(0o600)
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (folder / "slurm.conf").write_text(self._slurm_conf(topology))
        (folder / "gres.conf").write_text("".join(self._gres_lines(topology)))

    def _slurm_conf(self, topology: Topology) -> str:
        here, user, folder = socket.gethostname(), getpass.getuser(), self.folder
        sockets = len(topology.sockets) or 1
        cores = len(topology.cores) // sockets
        lines = [
            "ClusterName=peers",
            f"SlurmctldHost={here}(127.0.0.1)",
            f"SlurmctldPort={free_port()}",
            f"SlurmUser={user}",
            f"SlurmdUser={user}",
            "AuthType=auth/munge",
            f"AuthInfo=socket={folder}/munge/socket",
            "CryptoType=crypto/munge",
            "MpiDefault=none",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "JobAcctGatherType=jobacct_gather/none",
            "ReturnToService=2",
            f"StateSaveLocation={folder}/state",
            f"SlurmdSpoolDir={folder}/spool.%n",
            f"SlurmctldPidFile={folder}/slurmctld.pid",
            f"SlurmdPidFile={folder}/slurmd.%n.pid",
            f"SlurmctldLogFile={folder}/log/slurmctld",
            f"SlurmdLogFile={folder}/log/slurmd.%n",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "GresTypes=gpu",
            "SlurmdParameters=config_overrides",
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            "JobRequeue=1",
            *self.settings.lines,
        ]
        lines += [
            f"NodeName={host} NodeHostname={here} NodeAddr=127.0.0.1 Port={free_port()} "
            f"CPUs={sockets * cores} Boards=1 SocketsPerBoard={sockets} CoresPerSocket={cores} "
            f"ThreadsPerCore=1 RealMemory=4000 Gres=gpu:{len(topology.gpus)} State=UNKNOWN"
            for host in self._hosts
        ]
        lines += [
            f"PartitionName={name} Nodes=ALL Default={default} PriorityTier={tier} PreemptMode=REQUEUE "
            "GraceTime=0 State=UP MaxTime=INFINITE OverSubscribe=NO"
            for name, default, tier in (("low", "YES", 1), ("high", "NO", 9))
        ]
        return "\n".join(lines) + "\n"

    def _gres_lines(self, topology: Topology) -> Iterable[str]:
        sockets = {one.id: number for number, one in enumerate(topology.sockets)}
        cores = len(topology.cores) // (len(sockets) or 1)
        for host in self._hosts:
            devices = self.folder / "devices" / host
            devices.mkdir(parents=True)
            for gpu in topology.gpus:
                # slurmd wants a device; only the number behind its name matters.
                (devices / f"nvidia{gpu.index}").symlink_to(os.devnull)
                at = socket_of(topology, gpu)
                first = cores * (sockets[at] if at is not None else 0)
                yield (
                    f"NodeName={host} Name=gpu File={devices}/nvidia{gpu.index} "
                    f"Cores={first}-{first + cores - 1} Links={links(topology, gpu.index)}\n"
                )

    def __enter__(self) -> Self:
        try:
            self._start(
                [
                    *("munged", "--foreground", "--force", f"--socket={self.folder}/munge/socket"),
                    *(f"--key-file={self.folder}/munge/key", f"--log-file={self.folder}/munge/log"),
                    *(f"--pid-file={self.folder}/munge/pid", f"--seed-file={self.folder}/munge/seed"),
                ]
            )
            until((self.folder / "munge" / "socket").is_socket, "munged listens")
            self._start(["slurmctld", "-D", "-c"])
            for host in self._hosts:
                self._start(["slurmd", "-D", "-N", host])
            until(self._ready, f"all nodes are idle (logs: {self.folder}/log)")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, command: list[str]) -> None:
        name = found(command[0])
        assert name is not None, command[0]
        with (self.folder / "log" / "out").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [name, *command[1:]],
                    env={**os.environ, **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def _ready(self) -> bool:
        for process in self._processes:
            if process.poll() is not None:
                told = (self.folder / "log" / "out").read_text(errors="replace")[-600:]
                raise RuntimeError(f"{process.args!r} ended: {told}")
        try:
            states = self._ask("sinfo", "-h", "-N", "-p", "low", "-o", "%t").split()
        except RuntimeError:
            return False
        return states == ["idle"] * len(self._hosts)

    def __exit__(self, *_: object) -> None:
        try:
            if len(self._processes) > 1:
                self.cancel(self.alive())
                until(lambda: not self.alive(), "no job is left", 20.0)
        except (RuntimeError, TimeoutError) as error:
            print(f"slurm: jobs may be left behind: {error}")
        # munged last: without it the others cannot say goodbye.
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _ask(self, *command: str) -> str:
        return run_quietly(command, self.environment)

    def command(self, ask: Ask) -> list[str]:
        """Return the `sbatch` of a user."""
        asked = [f"--gres=gpu:{ask.gpus}"]
        if ask.part is not None and self.settings.together and ask.part.affinity is not Affinity.ANY:
            asked = [f"--gpus={ask.gpus}", f"--gpus-per-socket={ask.gpus}", "--sockets-per-node=1"]
        return [
            *("sbatch", "--parsable", "-p", HIGH if ask.priority == HIGH else "low", "-N1", "-n1", "-c1"),
            *(["-w", ask.host] if ask.host else []),
            *("-J", ask.name, "-o", "/dev/null", *asked, str(self._script), ask.name),
        ]

    def submit(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            self._ask(*self.command(ask))

    def cancel(self, names: Iterable[str]) -> None:
        wanted = ",".join(names)
        if wanted:
            self._ask("scancel", f"--user={getpass.getuser()}", *self._numbers(set(wanted.split(","))))

    def _numbers(self, names: set[str]) -> list[str]:
        return [number for number, name, _ in self._jobs() if name in names]

    def _jobs(self) -> list[list[str]]:
        return [line.split() for line in self._ask("squeue", "-h", "-o", "%i %j %t").splitlines()]

    def alive(self) -> set[str]:
        return {name for _, name, _ in self._jobs()}

    def running(self) -> set[str]:
        return {name for _, name, state in self._jobs() if state == "R"}


def links(topology: Topology, gpu: int) -> str:
    """Return `Links=` of a GPU: bonded NVLinks; a common PCIe switch counts as one."""
    return ",".join(
        "-1" if link is None else str(link.lanes or int(link.kind in {LinkClass.PIX, LinkClass.PXB}))
        for link in topology.links[gpu]
    )

"""What is done to every scheduler alike: fill the hosts exactly, ask, and see what the jobs say.

A job appends a line to a file of its own whenever it begins: when, on which host, with which GPUs. Who was
stopped and what the request got is read from there, not from what a scheduler believes.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.peers.scenario import Filler, Part, State, waves
from bench.peers.scoring import Outcome

LOW, HIGH = "low", "high"
PATIENCE = 60.0
"""Seconds; this machine may be busy."""
LONG_WAIT = 30.0
"""Seconds that the request is waited for: who has not begun by then, does not preempt for it."""
SETTLED = 0.4
SCRIPT = """#!/bin/bash
host=${{SLURMD_NODENAME:-$TOPOD_HOSTS}}
echo "$EPOCHREALTIME $host ${{SLURM_JOB_GPUS:-$TOPOD_GPU_INDICES}}" >> {begun}/$1
exec sleep 86400
"""


@dataclass(frozen=True, slots=True)
class Ask:
    """A job to submit. `part`: with the affinity of its request; else any GPUs of `host`."""

    name: str
    gpus: int
    priority: str = LOW
    host: str = ""
    part: Part | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    at: float
    host: str
    gpus: int


class Peer(Protocol):
    """A scheduler that runs here. Made by entering it, gone without a trace after."""

    begun: Path
    """The folder in which jobs tell of themselves."""
    environment: dict[str, str]

    def command(self, ask: Ask) -> list[str]:
        """Return the command that a user submits with."""
        ...

    def submit(self, asks: Sequence[Ask]) -> None:
        """Submit jobs in any quick way."""
        ...

    def cancel(self, names: Iterable[str]) -> None: ...

    def alive(self) -> set[str]:
        """Return the names of the jobs that have not ended."""
        ...

    def running(self) -> set[str]: ...


def write_script(folder: Path) -> tuple[Path, Path]:
    """Write the script of every job; return it, and the folder in which jobs tell of themselves."""
    begun = folder / "begun"
    begun.mkdir()
    script = folder / "job.sh"
    script.write_text(SCRIPT.format(begun=begun))
    script.chmod(0o755)
    return script, begun


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:.0f} s still not so: {what}")
        time.sleep(0.01)


def beginnings(peer: Peer, name: str) -> list[Begun]:
    """Return how often a job began, and where."""
    try:
        lines = (peer.begun / name).read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        if line.endswith("\n"):
            at, host, gpus = line.removesuffix("\n").split(" ")
            found.append(Begun(float(at), host, sum(1 << gpu for gpu in indices(gpus))))
    return found


def indices(text: str) -> list[int]:
    """Return the numbers of `0,2-3`."""
    found: list[int] = []
    for piece in text.split(","):
        low, _, high = piece.partition("-")
        found += range(int(low), int(high or low) + 1)
    return found


def clear(peer: Peer) -> None:
    """Cancel all jobs and return when they are gone."""
    peer.cancel(peer.alive())
    until(lambda: not peer.alive(), "no job is left")
    for file in peer.begun.iterdir():
        file.unlink()


def fill(peer: Peer, state: State, gpus: int) -> None:
    """Give every filler just its GPUs, in the order of the state.

    Jobs of one GPU each take all there are; those in the way of a filler go, and it has no other choice.
    """
    blockers = [Ask(f"{state.name}-{host}-b{n}", 1, host=host) for host in state.free for n in range(gpus)]
    peer.submit(blockers)
    until(lambda: all(beginnings(peer, ask.name) for ask in blockers), "the hosts are full")
    holds = {(at.host, at.gpus): ask.name for ask in blockers for at in beginnings(peer, ask.name)}
    for wave in waves(state):
        _swap(peer, holds, wave)
    _end(peer, [holds[host, bit] for host, mask in state.free.items() for bit in _bits(mask)])
    for filler in state.fillers:
        where = beginnings(peer, filler.name)
        assert [(at.host, at.gpus) for at in where] == [(filler.host, filler.gpus)], (filler, where)


def _swap(peer: Peer, holds: dict[tuple[str, int], str], wave: Sequence[Filler]) -> None:
    _end(peer, [holds[filler.host, bit] for filler in wave for bit in _bits(filler.gpus)])
    peer.submit([Ask(f.name, f.gpus.bit_count(), host=f.host) for f in wave])
    until(lambda: all(beginnings(peer, f.name) for f in wave), f"these began: {[f.name for f in wave]}")


def _end(peer: Peer, names: Sequence[str]) -> None:
    peer.cancel(names)
    until(lambda: not peer.alive() & set(names), "cancelled jobs are gone")


def _bits(mask: int) -> list[int]:
    return [1 << at for at in range(mask.bit_length()) if mask >> at & 1]


def preempt(peer: Peer, part: Part, state: State) -> Outcome:
    """Submit the request as a user does and return what came of it."""
    until(lambda: {f.name for f in state.fillers} <= peer.running(), "all fillers run")
    time.sleep(SETTLED)
    ask = Ask(f"{state.name}-request", part.gpus, HIGH, part=part)
    start, clock = time.time(), time.monotonic()
    run_quietly(peer.command(ask), peer.environment)
    accepted = time.monotonic() - clock
    try:
        until(lambda: bool(beginnings(peer, ask.name)), "the request runs", LONG_WAIT)
    except TimeoutError:
        return Outcome(state.name, _stopped(peer, state), None, 0)
    got = beginnings(peer, ask.name)[0]
    return Outcome(state.name, _stopped(peer, state), got.host, got.gpus, got.at - start, accepted)


def _stopped(peer: Peer, state: State) -> frozenset[str]:
    """Return who was stopped, once that no longer changes; some may have begun anew since."""
    before: frozenset[str] | None = None
    while True:
        running = peer.running()
        found = frozenset(
            f.name for f in state.fillers if f.name not in running or len(beginnings(peer, f.name)) > 1
        )
        if found == before:
            return found
        before = found
        time.sleep(SETTLED)


def submits_each_second(peer: Peer, count: int, gpus: int, prefix: str) -> float:
    """Return how many commands a second are taken, one after the other, while no GPU is free."""
    commands = [peer.command(Ask(f"{prefix}{n}", gpus)) for n in range(count)]
    clock = time.monotonic()
    for command in commands:
        run_quietly(command, peer.environment)
    return count / (time.monotonic() - clock)


def run_quietly(command: Sequence[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} exited with {done.returncode}: {done.stderr.strip()}")
    return done.stdout

"""Plans for many states of many hosts: one JSON object in, one line out, in order; no daemon is asked.

Rule: a line that cannot be answered gives a line with `error`, and the batch goes on.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from topod.discovery.document import HostDocument
from topod.discovery.load import load_host_file
from topod.errors import TopodError
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.occupancy import Holder, Occupancy
from topod.model.plan import Cost, Plan, Refusal
from topod.model.request import PRIORITIES, Affinity, CpuAffinity, Policy, ResourceRequest
from topod.preemption.search import plan

_MAX_HOSTS: Final = 512
"""So many hosts stay in memory; the oldest is read again if it comes up once more."""

Id = str | int
"""An id is given back as it came: text or a number."""


MAX_GPU_SECONDS = 1e12
"""30,000 years of one GPU; sums of it stay exact."""


class JobLine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A job that runs. `gpus` are indices, `gpu_seconds` the work lost if it is stopped now."""

    id: Id
    priority: int | str
    gpus: tuple[int, ...] = ()
    cpus: str | None = None
    preemptible: bool = True
    gpu_seconds: float = 0


class RequestLine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is asked for; the defaults of the batch are spelled out in `docs/reference`."""

    gpus: int
    priority: int | str
    affinity: Affinity | None = None
    policy: Policy | None = None
    cpus: int | Literal["auto"] | None = None
    cpu_affinity: CpuAffinity | None = None


class BatchLine(msgspec.Struct, kw_only=True):
    """One question. Without `jobs`, a host document's own occupancy counts; its blocks always do."""

    id: Id
    host: str
    request: RequestLine
    jobs: tuple[JobLine, ...] | None = None


class _IdOnly(msgspec.Struct):
    id: Id | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Host:
    tables: TopologyTables
    occupancy: Occupancy

    @property
    def count(self) -> int:
        return self.tables.count

    @property
    def cpus(self) -> CpuSet:
        """All CPUs of the host; none where they are not known: a matrix names only those beside GPUs."""
        topology = self.tables.topology
        return topology.cpus if topology.cores else NO_CPUS


class BadLineError(ValueError):
    """A line that says something impossible; the text says what."""


_DECODER: Final = msgspec.json.Decoder(BatchLine)
_ID_DECODER: Final = msgspec.json.Decoder(_IdOnly)
_ENCODER: Final = msgspec.json.Encoder()


class Batch:
    """Answers lines one by one. Hosts are found relative to `folder` and read once.

    `failures` counts the lines that gave an error.
    """

    def __init__(self, folder: Path) -> None:
        self.failures = 0
        self._folder = folder
        self._hosts: dict[str, _Host | TopodError] = {}

    def answers(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield one line of JSON, with its line feed, for each line that is not blank."""
        for line in lines:
            if not line.isspace():
                yield self.answer(line) + b"\n"

    def answer(self, line: bytes) -> bytes:
        """Return the answer to one line as JSON."""
        try:
            question = _DECODER.decode(line.removeprefix(codecs.BOM_UTF8))
            host = self._host(question.host)
            request = _request(question.request)
            occupancy, ids = _occupancy(question.jobs, host)
            found = plan(host.tables, occupancy, request)
        except (
            TopodError,
            BadLineError,
            msgspec.MsgspecError,
            ArithmeticError,
            ValueError,
            RecursionError,
        ) as error:
            self.failures += 1
            return _ENCODER.encode({"id": _id_of(line), "error": _plain(str(error))})
        if isinstance(found, Refusal):
            return _ENCODER.encode(_refusal(question.id, found))
        return _ENCODER.encode(_plan(question.id, found, request, ids))

    def _host(self, path: str) -> _Host:
        host = self._hosts.get(path)
        if host is None:
            if len(self._hosts) >= _MAX_HOSTS:
                del self._hosts[next(iter(self._hosts))]
            try:
                host = _read(load_host_file(self._folder / path))
            except TopodError as error:
                host = error
            self._hosts[path] = host
        if isinstance(host, TopodError):
            raise host
        return host


def _read(document: HostDocument) -> _Host:
    return _Host(tables=TopologyTables(document.topology), occupancy=document.occupancy or Occupancy())


_WORDS: Final = {
    "$.id": "text or an integer",
    "$.host": "text: the path of a host",
    "$.request.affinity": f"one of {', '.join(Affinity)}",
    "$.request.policy": f"one of {', '.join(Policy)}",
    "$.request.cpus": "a number of CPUs (not in quotes) or auto",
    "$.request.cpu_affinity": f"one of {', '.join(CpuAffinity)}",
    "$.request.priority": f"an integer, or one of {', '.join(PRIORITIES)}",
}


def _plain(text: str) -> str:
    """Say what a field must be where the decoder speaks of its types: `... - at `$.request.cpus``."""
    found, at, path = text.partition(" - at `")
    wanted = _WORDS.get(path.rstrip("`")) if at else None
    if wanted is None or not found.startswith(("Expected", "Invalid")):
        return text
    got = re.search(r"(?:got|value) (\S+)$", found)
    return f"must be {wanted}{f', not {got[1]}' if got else ''} - at `{path}"


def _id_of(line: bytes) -> Id | None:
    try:
        return _ID_DECODER.decode(line).id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _priority(value: int | str, whose: str) -> int:
    if isinstance(value, int):
        return value
    if value not in PRIORITIES:
        raise BadLineError(f"{whose}: no priority is called {value!r}; there are {', '.join(PRIORITIES)}")
    return PRIORITIES[value]


def _request(line: RequestLine) -> ResourceRequest:
    try:
        return ResourceRequest(
            gpus=line.gpus,
            affinity=line.affinity or Affinity.ANY,
            policy=line.policy or Policy.GUARANTEED,
            cpus=line.cpus or 0,
            cpu_affinity=line.cpu_affinity or CpuAffinity.NUMA,
            priority=_priority(line.priority, "request"),
        )
    except BadLineError:
        raise
    except ValueError as error:
        raise BadLineError(f"request: {error}") from error


def _occupancy(jobs: tuple[JobLine, ...] | None, host: _Host) -> tuple[Occupancy, dict[str, Id]]:
    """Return the state that `jobs` describe, and each job's id as the line wrote it."""
    if jobs is None:
        return host.occupancy, {holder.job: holder.job for holder in host.occupancy.holders}
    ids: dict[str, Id] = {}
    holders: list[Holder] = []
    taken_gpus = taken_cpus = 0
    for job in jobs:
        name = str(job.id)
        if name in ids:
            raise BadLineError(f"two jobs have the id {name}")
        ids[name] = job.id
        gpus, cpus = _gpus(job, host.count), _cpus(job, host.cpus)
        if gpus & taken_gpus:
            raise BadLineError(f"job {name}: GPU {CpuSet(gpus & taken_gpus)} is held by an earlier job too")
        if cpus.mask & taken_cpus:
            raise BadLineError(
                f"job {name}: CPU {CpuSet(cpus.mask & taken_cpus)} is held by an earlier job too"
            )
        taken_gpus |= gpus
        taken_cpus |= cpus.mask
        holder = Holder(
            job=name,
            priority=_priority(job.priority, f"job {name}"),
            gpus=gpus,
            cpus=cpus,
            evictable=job.preemptible,
            protection="" if job.preemptible else "not preemptible",
            work=_work(job),
        )
        holders.append(holder)
    return Occupancy(holders=tuple(holders), blocks=host.occupancy.blocks), ids


def _gpus(job: JobLine, count: int) -> int:
    mask = 0
    for index in job.gpus:
        if not 0 <= index < count:
            raise BadLineError(f"job {job.id}: the host has no GPU {index}, it has {count} (counted from 0)")
        if mask >> index & 1:
            raise BadLineError(f"job {job.id}: GPU {index} is listed twice")
        mask |= 1 << index
    return mask


def _cpus(job: JobLine, known: CpuSet) -> CpuSet:
    if not job.cpus:
        return NO_CPUS
    try:
        cpus = CpuSet.parse(job.cpus)
    except ValueError as error:
        raise BadLineError(f"job {job.id}: {error}") from error
    if known and cpus - known:
        raise BadLineError(f"job {job.id}: the host has no CPU {cpus - known}, it has {known}")
    return cpus


def _work(job: JobLine) -> int:
    if not (0 <= job.gpu_seconds <= MAX_GPU_SECONDS):
        text = f"gpu_seconds must be a number from 0 to {MAX_GPU_SECONDS:g}: {job.gpu_seconds:g}"
        raise BadLineError(f"job {job.id}: {text}")
    return round(job.gpu_seconds * 1000)


def _plan(ident: Id, found: Plan, request: ResourceRequest, ids: dict[str, Id]) -> dict[str, object]:
    return {
        "id": ident,
        "feasible": True,
        "gpus": found.gpus,
        "cpus": str(found.cpus),
        "victims": [ids[name] for name in found.victims],
        "affinity": found.affinity,
        "satisfied": found.satisfied,
        "cost": _cost(found.cost, links_first=request.gpus > 1 and request.affinity is not Affinity.ANY),
        "reason": None,
    }


def _cost(cost: Cost, *, links_first: bool) -> dict[str, object]:
    """Return the cost keys in the order in which they were compared."""
    links: dict[str, object] = {"weakest_link": cost.weakest_link, "link_sum": cost.link_sum}
    left: dict[str, object] = {"left": cost.left}
    return {
        "victims": [{"priority": priority, "count": count} for priority, count in cost.victims],
        "affinity_steps": cost.affinity_steps,
        "cpu_affinity_steps": cost.cpu_affinity_steps,
        "stranded_gpus": cost.stranded_gpus,
        "gpu_seconds_lost": cost.work_lost / 1000,
        **(links | left if links_first else left | links),
        "gpus": cost.gpus,
    }


def _refusal(ident: Id, found: Refusal) -> dict[str, object]:
    return {
        "id": ident,
        "feasible": False,
        "gpus": (),
        "cpus": "",
        "victims": (),
        "affinity": None,
        "satisfied": False,
        "cost": None,
        "reason": found.reason,
    }

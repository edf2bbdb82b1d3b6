"""The two files of a simulation: which hosts there are, and which jobs come. docs/reference/simulate.md."""

import tomllib
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from topod.discovery.library import load_library_host
from topod.errors import DataError, NotFoundError
from topod.flextopo.tables import TopologyTables
from topod.model.links import LinkClass
from topod.model.request import Affinity, CpuAffinity, Policy, ResourceRequest
from topod.protocol.jobfields import priority
from topod.protocol.units import parse_duration
from topod.shell.config_kinds import Section
from topod.shell.config_words import in_words
from topod.simulate.generate import Batch, Online
from topod.simulate.worth import Worth

MAX_HOSTS: Final = 100_000
MAX_BYTES: Final = 1 << 20
Number = int | float
S = TypeVar("S", bound=Section)


class Hosts(Section, frozen=True, kw_only=True):
    """One `[[hosts]]`: so many alike."""

    host: str
    """An emulated host by name, or a file."""
    count: int = 1
    name: str = ""
    """What they are called, with a number behind; empty: as `host`."""


class FleetFile(Section, frozen=True, kw_only=True):
    """The file of a fleet."""

    hosts: tuple[Hosts, ...]


class Asked(Section, frozen=True, kw_only=True):
    """What both kinds of jobs ask for; as in a job file."""

    name: str
    affinity: Affinity = Affinity.ANY
    policy: Policy = Policy.GUARANTEED
    cpus: int | Literal["auto"] = 0
    cpu_affinity: CpuAffinity = CpuAffinity.NUMA
    priority: int | str = "normal"


class OnlinePart(Asked, frozen=True, kw_only=True):
    """One `[[online]]`: a service whose replicas follow the day."""

    gpus: int
    replicas: tuple[int, int]
    """The fewest and the most of a day."""
    peak_hour: Number = 21
    jitter: Number = 0.05
    priority: int | str = "high"


class BatchPart(Asked, frozen=True, kw_only=True):
    """One `[[batch]]`: jobs that come at random."""

    gpus: int | tuple[int, ...]
    per_hour: Number
    run: tuple[str | Number, str | Number]
    """Median and 95th percentile of the work, as durations: `["1h", "8h"]`."""
    weights: tuple[Number, ...] = ()
    """How often each number of `gpus` is asked for."""
    checkpoint: str | Number = 0
    preemptible: bool = True
    priority: int | str = "low"


class WorkFile(Section, frozen=True, kw_only=True):
    """The file of a workload."""

    period: str | Number = "24h"
    online: tuple[OnlinePart, ...] = ()
    batch: tuple[BatchPart, ...] = ()


class LinksPart(Section, frozen=True, kw_only=True):
    """`[links]`: the share of the speed over NVLink that each class gives."""

    nvlink: Number
    pix: Number
    pxb: Number
    phb: Number
    node: Number
    sys: Number


class WorthFile(Section, frozen=True, kw_only=True):
    """The file of what placement is worth."""

    links: LinksPart
    remote_cpus: Number


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A described workload, to be generated with a seed."""

    seconds: float
    online: tuple[Online, ...]
    batch: tuple[Batch, ...]

    @property
    def requests(self) -> list[tuple[str, ResourceRequest]]:
        """What is asked for, with the part that asks."""
        found = [(part.name, part.request) for part in self.online]
        return found + [(part.name, request) for part in self.batch for request in part.requests]


def read_fleet(path: Path) -> list[tuple[str, TopologyTables]]:
    """Return the hosts of a fleet: name and tables; hosts alike share them.

    Raises `NotFoundError` and `DataError`.
    """
    file = _read(path, FleetFile)
    kinds: dict[str, TopologyTables] = {}
    found: list[tuple[str, TopologyTables]] = []
    for number, entry in enumerate(file.hosts, start=1):
        if entry.count < 1:
            raise DataError(f"hosts {number}: count must be 1 or more", source=str(path))
        if entry.host not in kinds:
            kinds[entry.host] = TopologyTables(load_library_host(entry.host).topology)
        name = entry.name or Path(entry.host).stem
        found += [
            (f"{name}-{at:0{len(str(entry.count))}}", kinds[entry.host]) for at in range(1, entry.count + 1)
        ]
    if len(found) > MAX_HOSTS:
        raise DataError(f"{len(found)} hosts, at most {MAX_HOSTS}", source=str(path))
    names = {name for name, _ in found}
    if len(names) < len(found):
        raise DataError("two [[hosts]] have the same name: give them `name`", source=str(path))
    if not found:
        raise DataError("names no [[hosts]]", source=str(path))
    return found


def read_work(path: Path) -> Work:
    """Return what a workload file describes. Raises `NotFoundError` and `DataError`."""
    file = _read(path, WorkFile)
    try:
        return Work(
            seconds=_above(0, "period", _seconds(file.period)),
            online=tuple(_online(f"online {at}", part) for at, part in enumerate(file.online, start=1)),
            batch=tuple(_batch(f"batch {at}", part) for at, part in enumerate(file.batch, start=1)),
        )
    except ValueError as error:
        raise DataError(str(error), source=str(path)) from None


def read_worth(path: Path) -> Worth:
    """Return what links and NUMA distance are worth. Raises `NotFoundError` and `DataError`."""
    file = _read(path, WorthFile)
    shares = {LinkClass[name.upper()]: getattr(file.links, name) for name in file.links.__struct_fields__}
    for name, share in (
        *((kind.name.lower(), share) for kind, share in shares.items()),
        ("remote_cpus", file.remote_cpus),
    ):
        if not 0 < share <= 1:
            raise DataError(f"{name}: a share above 0, at most 1, not {share}", source=str(path))
    return Worth(
        links={kind: float(share) for kind, share in shares.items()}, remote_cpus=float(file.remote_cpus)
    )


def _online(place: str, part: OnlinePart) -> Online:
    fewest, most = part.replicas
    if not 0 <= fewest <= most:
        raise ValueError(f"{place}: replicas: the fewest, then the most, not {fewest} and {most}")
    if not 0 <= part.peak_hour < 24:
        raise ValueError(f"{place}: peak_hour: 0 to 24, not {part.peak_hour}")
    return Online(
        name=part.name,
        request=_request(place, part, part.gpus),
        fewest=fewest,
        most=most,
        peak=float(part.peak_hour) * 3600,
        jitter=_above(-1e-9, f"{place}: jitter", float(part.jitter)),
    )


def _batch(place: str, part: BatchPart) -> Batch:
    sizes = part.gpus if isinstance(part.gpus, tuple) else (part.gpus,)
    weights = part.weights or (1,) * len(sizes)
    if len(weights) != len(sizes) or min(weights, default=0) < 0 or not sum(weights):
        raise ValueError(f"{place}: weights: one for each number of GPUs, none below 0, not {list(weights)}")
    median, most = (_seconds(value) for value in part.run)
    if not 0 < median <= most:
        raise ValueError(f"{place}: run: the median, then what 95 of 100 jobs do not exceed")
    return Batch(
        name=part.name,
        requests=tuple(_request(place, part, gpus) for gpus in sizes),
        weights=tuple(float(weight) for weight in weights),
        per_hour=_above(-1e-9, f"{place}: per_hour", float(part.per_hour)),
        median=median,
        most=most,
        checkpoint=_seconds(part.checkpoint),
        preemptible=part.preemptible,
    )


def _request(place: str, part: Asked, gpus: int) -> ResourceRequest:
    try:
        return ResourceRequest(
            gpus=gpus,
            affinity=part.affinity,
            policy=part.policy,
            cpus=part.cpus,
            cpu_affinity=part.cpu_affinity,
            priority=priority(part.priority),
        )
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _seconds(value: str | Number) -> float:
    return parse_duration(str(value))


def _above(least: float, name: str, value: float) -> float:
    if not value > least:
        raise ValueError(f"{name}: must be {'above' if least == 0 else 'at least'} 0")
    return value


def _read(path: Path, kind: type[S]) -> S:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DataError(f"longer than {MAX_BYTES >> 20} MiB", source=str(path))
        plain = tomllib.loads(data.decode())
    except FileNotFoundError:
        raise NotFoundError(
            f"no such file: {path}", hint="topoctl simulate --example DIR writes two"
        ) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", source=str(path)) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"not TOML: {error}", source=str(path)) from None
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise DataError(in_words(str(error), kind), source=str(path)) from None

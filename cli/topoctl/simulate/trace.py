"""Jobs from a file: topod's own format of a trace, and what Slurm's `sacct` prints."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TextIO

from topod.errors import DataError, NotFoundError
from topod.model.request import AUTO, Affinity, CpuAffinity, Policy, ResourceRequest
from topod.protocol.jobfields import priority
from topod.protocol.units import parse_duration
from topod.simulate.generate import numbered
from topod.simulate.jobs import SimJob

COLUMNS: Final = (
    "submit",
    "run",
    "gpus",
    "part",
    "priority",
    "affinity",
    "policy",
    "cpus",
    "cpu_affinity",
    "preemptible",
    "checkpoint",
    "ends",
)
NEEDED: Final = ("submit", "run", "gpus")
"""The others may be missing or empty."""
SACCT: Final = ("Submit", "ElapsedRaw", "AllocTRES")
_GPUS = re.compile(r"(?:^|,)gres/gpu=(\d+)")
_CPUS = re.compile(r"(?:^|,)cpu=(\d+)")


def read_trace(path: Path) -> list[SimJob]:
    """Return the jobs of a trace in the order of their coming. Raises `NotFoundError` and `DataError`."""
    return _read(path, ",", NEEDED, COLUMNS, _job)


def read_sacct(path: Path) -> list[SimJob]:
    """Return the jobs that `sacct -X -P -o Submit,ElapsedRaw,AllocTRES[,Priority,Partition]` printed.

    Times count from the first submit; jobs without GPUs and those that never ran are left out.
    """
    jobs = _read(path, "|", SACCT, None, _from_sacct)
    kept = [job for job in jobs if job.request.gpus and job.run > 0]
    if not kept:
        raise DataError("has no job that ran and held GPUs", source=str(path))
    first = min(job.submit for job in kept)
    return numbered([_moved(job, first) for job in kept])


def write_trace(file: TextIO, jobs: list[SimJob]) -> None:
    """Write jobs as a trace."""
    out = csv.writer(file, lineterminator="\n")
    out.writerow(COLUMNS)
    for job in jobs:
        asked = job.request
        out.writerow(
            (
                f"{job.submit:.3f}",
                f"{job.run:.3f}",
                asked.gpus,
                job.part,
                asked.priority,
                asked.affinity,
                asked.policy,
                asked.cpus,
                asked.cpu_affinity,
                "yes" if job.preemptible else "no",
                f"{job.checkpoint:g}",
                "" if job.ends is None else f"{job.ends:.3f}",
            )
        )


def _read(
    path: Path,
    comma: str,
    needed: tuple[str, ...],
    known: tuple[str, ...] | None,
    make: Callable[[int, Mapping[str, str]], SimJob],
) -> list[SimJob]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return numbered(list(_rows(file, str(path), comma, needed, known, make)))
    except FileNotFoundError:
        raise NotFoundError(f"no such file: {path}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text at byte {error.start}", source=str(path)) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", source=str(path)) from None
    except csv.Error as error:
        raise DataError(f"not a table: {error}", source=str(path)) from None


def _rows(  # noqa: PLR0917 - what a table is made of
    file: TextIO,
    source: str,
    comma: str,
    needed: tuple[str, ...],
    known: tuple[str, ...] | None,
    make: Callable[[int, Mapping[str, str]], SimJob],
) -> Iterator[SimJob]:
    rows = csv.DictReader(file, delimiter=comma)
    heads = rows.fieldnames or ()
    missing = [name for name in needed if name not in heads]
    if missing:
        raise DataError(
            f"has no column {', '.join(missing)}; it has {', '.join(heads) or 'none'}", source=source
        )
    unknown = [name for name in heads if known is not None and name not in known]
    if unknown:
        raise DataError(f"unknown column {unknown[0]!r}; known: {', '.join(known or ())}", source=source)
    for ident, row in enumerate(rows, start=1):
        try:
            yield make(ident, {name: (value or "").strip() for name, value in row.items() if name})
        except ValueError as error:
            raise DataError(str(error), source=source, line=rows.line_num) from None


def _job(ident: int, row: Mapping[str, str]) -> SimJob:
    submit, run, gpus = (_number(name, row[name]) for name in NEEDED)
    ends = row.get("ends", "")
    yes = row.get("preemptible") or "yes"
    if yes not in ("yes", "no"):
        raise ValueError(f"preemptible: yes or no, not {yes!r}")
    cpus: int | Literal["auto"] = (
        AUTO if row.get("cpus") == AUTO else int(_number("cpus", row.get("cpus") or "0"))
    )
    return SimJob(
        ident=ident,
        submit=submit,
        run=run,
        request=ResourceRequest(
            gpus=int(gpus),
            affinity=Affinity(row.get("affinity") or Affinity.ANY),
            policy=Policy(row.get("policy") or Policy.GUARANTEED),
            cpus=cpus,
            cpu_affinity=CpuAffinity(row.get("cpu_affinity") or CpuAffinity.NUMA),
            priority=priority(row.get("priority") or "normal"),
        ),
        part=row.get("part") or "batch",
        preemptible=yes == "yes",
        checkpoint=parse_duration(row.get("checkpoint") or "0"),
        ends=_number("ends", ends) if ends else None,
    )


def _from_sacct(ident: int, row: Mapping[str, str]) -> SimJob:
    held = row["AllocTRES"]
    gpus, cpus = (int(found[1]) if (found := pattern.search(held)) else 0 for pattern in (_GPUS, _CPUS))
    submit = row["Submit"]
    try:
        moment = datetime.fromisoformat(submit).timestamp()
    except ValueError:
        raise ValueError(f"Submit: not a time: {submit!r}") from None
    return SimJob(
        ident=ident,
        submit=moment,
        run=_number("ElapsedRaw", row["ElapsedRaw"]),
        request=ResourceRequest(gpus=gpus, cpus=cpus, priority=priority("low"), cpu_affinity=CpuAffinity.ANY),
        part=row.get("Partition") or "batch",
    )


def _moved(job: SimJob, first: float) -> SimJob:
    return SimJob(ident=job.ident, submit=job.submit - first, run=job.run, request=job.request, part=job.part)


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name}: not a number: {text[:40]!r}") from None
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: must be 0 or more: {text[:40]}")
    return value

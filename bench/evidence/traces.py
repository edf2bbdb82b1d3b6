"""Measured traces: services that follow the rates of ServeGen over batch jobs of Philly, on a mixed fleet.

ServeGen (Alibaba Cloud Model Studio; Apache-2.0; arXiv 2505.09999): requests a second of one client in
windows of 10 minutes; a client is taken for a service, its replicas follow the rate. Philly (Microsoft; CC-BY
4.0; Jeon et al., ATC'19) as released with Pollux: submit, duration and GPUs of each job; those of up to 8
GPUs are taken.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from random import Random
from typing import Final

from topoctl.simulate.runs import Plot
from topod.discovery.library import load_library_host
from topod.flextopo.tables import TopologyTables
from topod.model.request import AUTO, PRIORITIES, Affinity, Policy, ResourceRequest
from topod.simulate.generate import following, numbered
from topod.simulate.jobs import SimJob
from topod.simulate.worth import Worth

DAYS: Final = 7
SECONDS: Final = DAYS * 86400.0
WINDOW: Final = 600.0
FIRST_DAY: Final = datetime(2017, 10, 9)  # noqa: DTZ001 - the trace has no zone
FLEET: Final = (("hgx-h100", 6), ("dgx1", 6), ("rtx4090x8", 12))


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A client of ServeGen as a service: at its highest rate it has `most` replicas."""

    file: str
    client: str
    gpus: int
    affinity: Affinity
    most: int


SERVICES: Final = (
    Service(file="m-small", client="5", gpus=2, affinity=Affinity.SOCKET, most=20),
    Service(file="m-small", client="31", gpus=1, affinity=Affinity.ANY, most=12),
    Service(file="m-mid", client="30", gpus=4, affinity=Affinity.NVLINK, most=8),
    Service(file="m-small", client="26", gpus=4, affinity=Affinity.NUMA, most=6),
)


def plot(shared: Path, load: float, worth: Worth) -> Plot:
    """Return a week on the mixed fleet; `load`: batch jobs' work beside what is free on average."""
    hosts: list[tuple[str, TopologyTables]] = []
    for name, count in FLEET:
        tables = TopologyTables(load_library_host(name).topology)
        hosts += [(f"{name}-{at:02}", tables) for at in range(count)]
    online = [job for service in SERVICES for job in _replicas(shared, service)]
    gpus = sum(tables.count for _, tables in hosts)
    used = sum(job.request.gpus * ((job.ends or SECONDS) - job.submit) for job in online)
    batch = _batch(shared, load * (gpus * SECONDS - used))
    return Plot(
        hosts=hosts, seconds=SECONDS, stop_seconds=30.0, worth=worth, jobs=tuple(numbered([*online, *batch]))
    )


def _replicas(shared: Path, service: Service) -> Iterator[SimJob]:
    rates: dict[float, float] = {}
    path = shared / "traces" / "servegen" / f"{service.file}_clients_14d.csv"
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["client"] == service.client and float(row["timestamp"]) < SECONDS:
                rates[float(row["timestamp"])] = float(row["rate"])
    each = max(rates.values()) / service.most
    wanted = [ceil(rates.get(at * WINDOW, 0.0) / each) for at in range(int(SECONDS // WINDOW))]
    asked = ResourceRequest(
        gpus=service.gpus,
        affinity=service.affinity,
        policy=Policy.GUARANTEED,
        cpus=AUTO,
        priority=PRIORITIES["high"],
    )
    yield from following(wanted, WINDOW, SECONDS, f"{service.file}-{service.client}", asked)


def _batch(shared: Path, work: float) -> list[SimJob]:
    """Return jobs of a week, of all as many at random as come to that many GPU-seconds within it."""
    found = []
    path = shared / "traces" / "philly-pollux" / "philly_2017-10-01_2017-11-19.csv"
    with path.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            gpus = int(row["num_gpus"])
            submit = (datetime.fromisoformat(row["timestamp"]) - FIRST_DAY).total_seconds() % SECONDS
            if gpus <= 8 and float(row["duration"]) > 0:
                asked = ResourceRequest(
                    gpus=gpus,
                    affinity=Affinity.SOCKET if gpus > 1 else Affinity.ANY,
                    policy=Policy.BEST_EFFORT,
                    cpus=AUTO,
                    priority=PRIORITIES["low"],
                )
                found.append(
                    SimJob(
                        ident=number,
                        submit=submit,
                        run=float(row["duration"]),
                        request=asked,
                        part="philly",
                        checkpoint=1800.0,
                    )
                )
    Random("philly").shuffle(found)
    taken, total = [], 0.0
    for job in found:
        if total >= work:
            break
        taken.append(job)
        total += job.request.gpus * min(job.run, SECONDS - job.submit)
    return taken

"""The models of other schedulers choose as the real ones did: recorded runs, and their means over random hosts."""

import json
from collections.abc import Callable, Sequence
from itertools import combinations
from random import Random

import pytest

from tests.shared import SHARED, needs_shared
from tests.unit.simulate.scenes import HALVES, PAIRS, host, random_scene, recorded, wanted
from topod.model.request import Affinity
from topod.simulate.machines import Machine, bits
from topod.simulate.policies.base import Policy
from topod.simulate.policies.exact import Exact
from topod.simulate.policies.kube import Kube
from topod.simulate.policies.nomad import Nomad
from topod.simulate.policies.slurm import Slurm

SCENES = 400


@needs_shared
def test_slurm_stops_whom_the_real_one_stopped_and_gives_the_same_gpus() -> None:
    folder = SHARED / "peers-slurm"
    scenes = {one["name"]: one for one in json.loads((folder / "scen_q.json").read_text())["scenarios"]}
    lines = [json.loads(line) for line in (folder / "res_q.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["scenario"] in scenes]
    assert len(lines) == 60
    tables = host(PAIRS)
    for line in lines:
        bound = line["variant"] == "socket"
        machine, names = recorded(tables, scenes[line["scenario"]])
        affinity = Affinity.SOCKET if bound else Affinity.ANY
        found = Slurm(bind=bound).preempt(wanted(2, affinity), [machine], 0.0)
        assert found is not None
        told = sorted(names[victim] for victim in found.victims), bits(found.gpus)
        assert told == (sorted(line["victims"]), line["got"]), line["scenario"]


def fewest(machine: Machine, groups: Sequence[Sequence[int]], want: int) -> int:
    """Return how many have to go so that a job finds its GPUs in one of the groups."""
    runs = list(machine.runs.values())
    for size in range(len(runs) + 1):
        for victims in combinations(runs, size):
            have = set(bits(machine.free_gpus)).union(*(bits(run.gpus) for run in victims))
            if any(len(have & set(group)) >= want for group in groups):
                return size
    raise AssertionError("it never fits")


@pytest.mark.parametrize(
    ("make", "affinity", "victims", "aligned"),
    [
        # Measured on the real ones, 30 runs each on hosts laid out like these, where at least 1.93 victims had to
        # go for any GPUs, and 2.77 for GPUs of one group.
        (lambda: Slurm(bind=False), Affinity.ANY, 2.23 / 1.93, 0.10),
        (Slurm, Affinity.NUMA, 2.87 / 2.77, 1.00),
        (Kube, Affinity.ANY, 2.50 / 1.93, 0.13),
        (Nomad, Affinity.ANY, 2.40 / 1.93, 0.07),
        (Exact, Affinity.NUMA, 1.00, 1.00),
    ],
)
def test_models_come_near_what_was_measured(
    make: Callable[[], Policy], affinity: Affinity, victims: float, aligned: float
) -> None:
    chance, tables, policy = Random(1), host(HALVES), make()
    groups = HALVES if affinity is Affinity.NUMA else [range(8)]
    stopped = least = together = 0
    for _ in range(SCENES):
        machine = random_scene(chance, tables, HALVES, 4)
        found = policy.preempt(wanted(4, affinity), [machine], 100.0)
        assert found is not None
        stopped += len(found.victims)
        least += fewest(machine, groups, 4)
        together += any(set(bits(found.gpus)) <= set(group) for group in HALVES)
    assert stopped / least == pytest.approx(victims, rel=0.1)
    assert together / SCENES == pytest.approx(aligned, abs=0.1)

"""Which CPUs in foreign use are kept from jobs."""

import pytest

from topod.health.cpu_use import CpuWatch, Load
from topod.health.rules import HealthRules
from topod.health.use import Who
from topod.model.cpuset import CpuSet

ALL = CpuSet.parse("0-7")


def load(cpus: str, used: float = 1.0, pid: int = 4711, name: str = "python") -> Load:
    who = Who(pid=pid, started_at=1.0, name=name, user="alice")
    return Load(who=who, cpus=CpuSet.parse(cpus), used=used)


def watch(pinnable: str = "0-7") -> CpuWatch:
    return CpuWatch(HealthRules(), CpuSet.parse(pinnable), ALL)


def test_a_bound_process_that_works_keeps_its_cpus_to_itself() -> None:
    assert watch().look([load("2-3")], set(), {4711}, 0.0) == (("2-3", "pid 4711 (python, alice)"),)


@pytest.mark.parametrize(
    ("seen", "own"),
    [
        (load("0-7"), set()),  # bound to nothing
        (load("0-4"), set()),  # fenced, not placed
        (load("2-3", used=0.2), set()),  # hardly works
        (load("2-3"), {4711}),  # a job's
        (load("2-3", name="nv-hostengine"), set()),
    ],
)
def test_what_does_not_count(seen: Load, own: set[int]) -> None:
    assert watch().look([seen], own, {4711}, 0.0) == ()


def test_only_cpus_that_jobs_could_get_are_named() -> None:
    assert watch("3-7").look([load("2-3")], set(), {4711}, 0.0) == (("3", "pid 4711 (python, alice)"),)
    assert watch("4-7").look([load("2-3")], set(), {4711}, 0.0) == ()


def test_two_on_the_same_cpus_are_both_named() -> None:
    both = [load("2-3"), load("2-3", pid=4712, name="dd")]
    [(cpus, who)] = watch().look(both, set(), {4711, 4712}, 0.0)
    assert (cpus, who) == ("2-3", "pid 4711 (python, alice); pid 4712 (dd, alice)")


def test_a_pause_changes_nothing_but_an_end_or_a_long_silence_does() -> None:
    seen = watch()
    first = seen.look([load("2-3")], set(), {4711}, 0.0)
    assert seen.look([], set(), {4711}, 50.0) == first
    assert seen.look([], set(), {4711}, 61.0) == ()
    seen.look([load("2-3")], set(), {4711}, 70.0)
    assert seen.look([], set(), {1}, 71.0) == ()

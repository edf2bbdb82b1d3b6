"""Numbers that no host has: each costs its own line, no memory and no time, and the batch goes on."""

import json
from pathlib import Path

import pytest

from topoctl.batch import Batch
from topod.discovery.document import dump_host
from topod.discovery.library import load_library_host


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    (tmp_path / "h.json").write_bytes(dump_host(load_library_host("dgx1").topology))
    return Batch(tmp_path)


def ask(batch: Batch, job: str = "", **request: object) -> dict[str, object]:
    jobs = f'[{{"id": "a", "priority": 1, "gpus": [0, 1, 2, 3, 4, 5, 6, 7]{job}}}]'
    line = f'{{"id": 1, "host": "h.json", "jobs": {jobs}, "request": {json.dumps({"gpus": 2, "priority": 9, **request})}}}'
    answer: dict[str, object] = json.loads(batch.answer(line.encode()))
    return answer


@pytest.mark.parametrize("count", [81, 10**7, 10**11, 2**60, 2**62, 2**63 - 1, 2**63, 10**30])
def test_more_cpus_than_the_host_has_are_refused_by_counting(batch: Batch, count: int) -> None:
    assert ask(batch, cpus=count)["reason"] == f"{count} CPUs asked for, the host has 80"


@pytest.mark.parametrize("count", [9, 10**9, 2**63, 10**30])
def test_more_gpus_than_the_host_has_are_refused_by_counting(batch: Batch, count: int) -> None:
    assert ask(batch, gpus=count)["reason"] == f"{count} GPUs asked for, the host has 8"


@pytest.mark.parametrize("seconds", ["1e16", "1e17", "9223372036854775", "1e300", "1e308", "-1"])
def test_work_beyond_reason_is_an_error_of_its_line(batch: Batch, seconds: str) -> None:
    assert "gpu_seconds must be" in str(ask(batch, job=f', "gpu_seconds": {seconds}')["error"])
    assert batch.failures == 1
    assert ask(batch)["feasible"]


def test_work_up_to_the_limit_is_summed_exactly(batch: Batch) -> None:
    answer = ask(batch, job=', "gpu_seconds": 1e12')
    assert isinstance(answer["cost"], dict)
    assert answer["cost"]["gpu_seconds_lost"] == 1e12


@pytest.mark.parametrize("priority", [10**18, 10**30])
def test_priorities_may_be_any_whole_number(batch: Batch, priority: int) -> None:
    assert ask(batch, priority=priority)["victims"] == ["a"]

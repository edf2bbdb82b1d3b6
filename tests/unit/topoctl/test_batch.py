"""`plan --batch`: one line in, one line out, whatever the line says."""

import json
from pathlib import Path
from typing import Any

import pytest

from topoctl.batch import Batch
from topod.discovery.document import dump_host
from topod.discovery.from_matrix import topology_from_matrix
from topod.discovery.parse_smi_topo import parse_matrix
from topod.model.occupancy import Block, Holder, Occupancy

MATRIX = """\
\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity
GPU0\t X \tNV4\tSYS\tSYS\t0-3\t0
GPU1\tNV4\t X \tSYS\tSYS\t0-3\t0
GPU2\tSYS\tSYS\t X \tNV4\t4-7\t1
GPU3\tSYS\tSYS\tNV4\t X \t4-7\t1
"""
LOW = {"id": "low", "priority": 100, "gpus": [0, 1]}
HIGH = {"id": "high", "priority": 1000, "gpus": [2]}


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    (tmp_path / "four.txt").write_text(MATRIX)
    (tmp_path / "cut.txt").write_text(MATRIX.rsplit("GPU3", 1)[0])
    return Batch(tmp_path)


def _ask(batch: Batch, jobs: Any = (), /, *, ident: Any = "q", host: str = "four.txt", **request: Any) -> Any:
    asked = {"gpus": 2, "priority": 500, "affinity": "nvlink", "policy": "guaranteed"} | request
    line = json.dumps({"id": ident, "host": host, "jobs": list(jobs), "request": asked})
    return json.loads(batch.answer(line.encode()))


def test_a_plan_names_gpus_victims_level_and_cost_in_the_order_of_comparison(batch: Batch) -> None:
    answer = _ask(batch, [LOW, HIGH])
    assert answer["feasible"] is True
    assert answer["gpus"] == [0, 1]
    assert answer["victims"] == ["low"]
    assert (answer["affinity"], answer["satisfied"], answer["reason"], answer["cpus"]) == (
        "nvlink",
        True,
        None,
        "",
    )
    assert list(answer) == [
        "id",
        "feasible",
        "gpus",
        "cpus",
        "victims",
        "affinity",
        "satisfied",
        "cost",
        "reason",
    ]
    assert list(answer["cost"]) == [
        "victims", "affinity_steps", "cpu_affinity_steps", "stranded_gpus", "gpu_seconds_lost",
        "weakest_link", "link_sum", "left", "gpus",
    ]  # fmt: skip
    assert answer["cost"]["victims"] == [{"priority": 100, "count": 1}]


def test_for_one_gpu_what_is_left_is_compared_before_the_links(batch: Batch) -> None:
    keys = list(_ask(batch, gpus=1)["cost"])
    assert keys.index("left") < keys.index("weakest_link")


def test_a_refusal_has_a_reason_and_nothing_else(batch: Batch) -> None:
    answer = _ask(batch, [dict(LOW, preemptible=False), HIGH])
    assert answer["feasible"] is False
    assert answer["reason"]
    assert (answer["gpus"], answer["victims"], answer["affinity"], answer["cost"]) == ([], [], None, None)


def test_ids_come_back_as_they_went_in(batch: Batch) -> None:
    answer = _ask(batch, [dict(LOW, id=7), dict(HIGH, priority=100)], ident=12, gpus=4, affinity="any")
    assert answer["id"] == 12
    assert answer["victims"] == [7, "high"]


def test_pinned_cpus_and_lost_work_are_counted(batch: Batch) -> None:
    answer = _ask(batch, [dict(LOW, cpus="0-1", gpu_seconds=1.5)], gpus=4, affinity="any", cpus=4)
    assert answer["cost"]["gpu_seconds_lost"] == 1.5
    assert answer["victims"] == ["low"]
    assert answer["cpus"].count(",") >= 1


def test_defaults_are_any_guaranteed_and_no_cpus(batch: Batch) -> None:
    line = {"id": "q", "host": "four.txt", "jobs": [], "request": {"gpus": 3, "priority": "high"}}
    answer = json.loads(batch.answer(json.dumps(line).encode()))
    assert (answer["feasible"], answer["affinity"], answer["cpus"]) == (True, "any", "")


@pytest.mark.parametrize(
    ("jobs", "changes", "message"),
    [
        ([], {"host": "none.txt"}, "no such file: "),
        ([], {"host": "cut.txt"}, "cut.txt:4:27: no row for GPU3"),
        ([dict(LOW, gpus=[4])], {}, "job low: the host has no GPU 4, it has 4 (counted from 0)"),
        ([dict(LOW, gpus=[-1])], {}, "job low: the host has no GPU -1"),
        ([dict(LOW, gpus=[1, 1])], {}, "job low: GPU 1 is listed twice"),
        ([LOW, dict(HIGH, gpus=[1, 2])], {}, "job high: GPU 1 is held by an earlier job too"),
        (
            [dict(LOW, cpus="0-3"), dict(HIGH, cpus="2-5")],
            {},
            "job high: CPU 2-3 is held by an earlier job too",
        ),
        ([dict(LOW, cpus="3-0")], {}, "job low: not a CPU list: '3-0'"),
        ([LOW, dict(HIGH, id="low")], {}, "two jobs have the id low"),
        ([LOW, dict(HIGH, gpu_seconds=-1)], {}, "job high: gpu_seconds must be a number from 0 to 1e+12: -1"),
        (
            [dict(LOW, priority="urgent")],
            {},
            "job low: no priority is called 'urgent'; there are low, normal, high",
        ),
        ([dict(LOW, priority=1.5)], {}, "`$.jobs[0].priority`"),
        ([dict(LOW, gpu=[1])], {}, "unknown field `gpu` - at `$.jobs[0]`"),
        ([], {"gpus": -1}, "request: gpus must be 0 or more: -1"),
        ([], {"gpus": True}, "`$.request.gpus`"),
        (
            [],
            {"affinity": "near"},
            "must be one of nvlink-all, nvlink, pcie, numa, socket, any, not 'near' - at `$.request.affinity`",
        ),
        (
            [],
            {"cpus": "many"},
            "must be a number of CPUs (not in quotes) or auto, not 'many' - at `$.request.cpus`",
        ),
    ],
)
def test_a_line_that_says_something_impossible_gives_an_error_with_its_id(
    batch: Batch, jobs: list[dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    answer = _ask(batch, jobs, **changes)
    assert set(answer) == {"id", "error"}
    assert answer["id"] == "q"
    assert message in answer["error"]
    assert batch.failures == 1


@pytest.mark.parametrize("line", [b"{", b"[]", b"\xff\xff", b'{"id": {}}', b"[" * 100_000])
def test_a_line_that_is_no_question_gives_an_error_without_an_id(batch: Batch, line: bytes) -> None:
    answer = json.loads(batch.answer(line))
    assert answer["id"] is None
    assert answer["error"]


def test_blank_lines_are_skipped_and_the_batch_goes_on_after_an_error(batch: Batch) -> None:
    good = json.dumps(
        {"id": 1, "host": "four.txt", "jobs": [], "request": {"gpus": 1, "priority": 1}}
    ).encode()
    answers = [json.loads(line) for line in batch.answers([b"\n", b"oops\n", b"  \r\n", good])]
    assert [answer["id"] for answer in answers] == [None, 1]
    assert batch.failures == 1


def test_a_document_brings_its_blocks_and_its_jobs_unless_the_line_says_which_run(tmp_path: Path) -> None:
    occupancy = Occupancy(
        holders=(Holder(job="3", priority=1000, gpus=0b0001),),
        blocks=(Block(reason="unhealthy: Xid 79", gpus=0b1000),),
    )
    host = topology_from_matrix(parse_matrix(MATRIX), "four")
    (tmp_path / "four.json").write_bytes(dump_host(host, occupancy))
    batch = Batch(tmp_path)
    question = {"id": 1, "host": "four.json", "request": {"gpus": 3, "priority": 500}}
    assert json.loads(batch.answer(json.dumps(question).encode()))["feasible"] is False
    answer = json.loads(batch.answer(json.dumps(question | {"jobs": []}).encode()))
    assert answer["gpus"] == [0, 1, 2]


def test_a_cpu_that_the_host_does_not_have_is_an_error_and_a_byte_order_mark_is_none() -> None:
    batch = Batch(Path(__file__).resolve().parents[3] / "fixtures" / "hosts")
    question = {"id": 1, "host": "dgx1.json", "jobs": [dict(LOW, gpus=[], cpus="79-80")]}
    line = json.dumps(question | {"request": {"gpus": 1, "priority": 1}}).encode()
    assert json.loads(batch.answer(line))["error"] == "job low: the host has no CPU 80, it has 0-79"
    good = line.replace(b"79-80", b"79")
    assert json.loads(batch.answer(b"\xef\xbb\xbf" + good)) == json.loads(batch.answer(good))
    assert batch.failures == 1


def test_a_question_without_an_id_says_what_an_id_is(batch: Batch) -> None:
    error = json.loads(batch.answer(b'{"id": null}'))["error"]
    assert error == "must be text or an integer, not `null` - at `$.id`"

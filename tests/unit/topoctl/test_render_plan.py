"""A plan and a job in words."""

from typing import Any

from tests.unit.topoctl.views import NOW, event, job
from topoctl.doctor.check import Check
from topoctl.render.doctor import check_text, summary
from topoctl.render.events import event_line
from topoctl.render.plan import plan_text
from topoctl.render.show import job_text
from topoctl.render.style import Style
from topod.model.job import CheckpointHook, JobSpec, Mount, OnPreempt
from topod.model.request import ResourceRequest
from topod.protocol.replies import Planned

PLAN: dict[str, Any] = {
    "gpus": [4, 5, 6, 7],
    "cpus": "20-39,60-79",
    "victims": [3],
    "affinity": "nvlink",
    "cpu_affinity": "numa",
    "satisfied": True,
    "cost": {},
    "victim_reasons": [{"job": 3, "priority": 100, "why": "holds GPUs 4,7, which the plan takes"}],
    "cost_text": [
        {"key": "victims", "value": "1 of priority 100"},
        {"key": "affinity", "value": "as asked for"},
        {"key": "stranded GPUs", "value": "0 that victims lose and nobody takes"},
        {"key": "work lost", "value": "3 GPU-seconds"},
        {"key": "indices", "value": "GPUs 4,5,6,7"},
    ],
    "alternative": {
        "gpus": [1, 2, 5, 6],
        "victims": [2],
        "decided_by": "work lost: 3 GPU-seconds, instead of 4 GPU-seconds",
    },
}


def test_a_plan_tells_the_victims_what_decided_and_the_next_best() -> None:
    text = plan_text(Planned(feasible=True, plan=PLAN), ResourceRequest(gpus=4), Style())
    assert text == (
        "would start on 4 GPUs after stopping 1 job\n"
        "  gpus        4-7\n"
        "  cpus        20-39,60-79\n"
        "  affinity    nvlink; CPUs numa\n"
        "  stops       job 3 (low): holds GPUs 4,7, which the plan takes\n"
        "  cost        victims: 1 of priority 100\n"
        "              work lost: 3 GPU-seconds\n"
        "  next best   GPUs 1-2,5-6, stopping job 2\n"
        "              lost by work lost: 3 GPU-seconds, instead of 4 GPU-seconds\n"
    )


def test_a_plan_names_jobs_of_an_array_by_their_places() -> None:
    plan = {**PLAN, "idents": {"3": "1[2]", "2": "1[1]"}}
    text = plan_text(Planned(feasible=True, plan=plan), ResourceRequest(gpus=4), Style())
    assert "  stops       job 1[2] (low): holds GPUs 4,7, which the plan takes\n" in text
    assert "  next best   GPUs 1-2,5-6, stopping job 1[1]\n" in text
    shown = job_text(job(victims=[2, 3], plan=plan), [], NOW, Style())
    assert "job 1[1], job 1[2]" in shown


def test_a_plan_without_victims_says_so_and_a_missed_affinity_too() -> None:
    plan = {"gpus": [0], "cpus": "", "victims": [], "affinity": "numa", "satisfied": False}
    text = plan_text(Planned(feasible=True, plan=plan), ResourceRequest(gpus=1), Style())
    assert text.startswith("would start now on 1 GPU, stopping nobody\n")
    assert "affinity    numa (less than asked for)" in text
    assert "cpus        the shared pool" in text


def test_a_refusal_gives_its_reason_wrapped_to_the_terminal() -> None:
    reason = "4 GPUs on one NUMA node: node 0 has 3 that can be freed, node 1 has 2: job 17 (priority 1000) holds 2"
    planned = Planned(feasible=False, reason=reason, details=["largest that can be freed: GPUs 5-6"])
    lines = plan_text(planned, ResourceRequest(gpus=4), Style(width=60)).splitlines()
    assert lines[0] == "would wait"
    assert max(map(len, lines)) <= 60
    assert " ".join(line.strip() for line in lines[1:3]).startswith("because     4 GPUs on one NUMA node")


def test_a_job_is_shown_with_request_container_plan_and_story() -> None:
    spec = JobSpec(
        name="train",
        command=("python", "train.py", "--name", "a b"),
        image="pytorch/pytorch",
        env={"SECRET": "hunter2"},
        mounts=(Mount(source="/data", target="/data", read_only=True),),
        memory_bytes=64 << 30,
        min_runtime_seconds=600,
        on_preempt=OnPreempt.CANCEL,
        cap_add=("IPC_LOCK",),
        checkpoint=CheckpointHook(command=("save",)),
    )
    view = job(12, spec=spec, plan=PLAN, priority=1000, preemptions=1, starts=2, gpu_seconds=35)
    story = [
        event(3, "job.submitted", "job 12 (train) submitted"),
        event(9, "hook.failed", "the hook of job 12"),
    ]
    text = job_text(view, story, NOW, Style())
    for part in (
        "job 12 (train)  running\n",
        "priority    high (1000)\n",
        "asks for    2 GPUs, any guaranteed; auto CPUs, numa\n",
        "preemptible 30s grace, then cancel\n",
        "min runtime 10m00s\n",
        "restarts    1 (1 preemption, 0 failures in a row)\n",
        "GPU time    6m59s\n",
        "capabilities IPC_LOCK\n",
        "command     python train.py --name 'a b'\n",
        "volume      /data:/data:ro\n",
        "checkpoint  save (at most 30s)\n",
        "plan\n  gpus        4-7\n",
        "  submitted\n",
        "  the hook of job 12\n",
    ):
        assert part in text, part
    assert "SECRET" in text
    assert "hunter2" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_job_that_failed_is_shown_with_when_the_next_try_is_due_until_then() -> None:
    view = job(12, state="pending", failures=2, next_try_at=NOW + 10)
    text = job_text(view, [], NOW, Style())
    assert "2 failures in a row" in text
    assert "(in 10s)\n" in text.partition("next try")[2]
    assert "next try" not in job_text(view, [], NOW + 10, Style())


def test_an_event_of_another_day_carries_its_date() -> None:
    one = event(3, "job.failed", "job 12 (train) failed: exit code 3\x1b[2J")
    today = event_line(one, NOW, Style(), wide=False)
    assert event_line(one, NOW + 3 * 86400, Style(), wide=False).split()[1:] == today.split()
    assert "\x1b" not in today
    assert event_line(one, NOW, Style(), wide=True).split()[::2][:2] == ["3", "job.failed"]


def test_the_doctor_shows_verdict_finding_and_remedy() -> None:
    bad = Check(name="NVML", verdict="bad", text="NVML library not found", mend="topod --host dgx1")
    assert (
        check_text(bad, Style())
        == "bad   NVML         NVML library not found\n                   → topod --host dgx1\n"
    )
    assert check_text(bad, Style(unicode=False)).isascii()
    assert summary([bad, bad, Check(name="x", verdict="ok", text="")]) == "1 ok, 2 bad\n"


def test_a_plan_that_lost_by_its_indices_alone_was_as_good() -> None:
    plan = PLAN | {
        "alternative": {"gpus": [0], "victims": [], "decided_by": "indices: GPUs 0, instead of GPUs 1"}
    }
    text = plan_text(Planned(feasible=True, plan=plan), ResourceRequest(gpus=1), Style())
    assert text.endswith("stopping nobody\n              as good; the lower indices win\n")


def test_a_cheaper_plan_that_a_budget_forbids_is_told_with_the_budget() -> None:
    barred = {"gpus": [0], "victims": [5], "ruled_out_by": "service=chat must keep 2 running"}
    text = plan_text(
        Planned(feasible=True, plan=PLAN | {"ruled_out": barred}), ResourceRequest(gpus=4), Style()
    )
    assert text.endswith(
        "  ruled out   GPU 0, stopping job 5\n              cheaper, but service=chat must keep 2 running\n"
    )


def test_a_plan_over_several_hosts_counts_a_job_once_and_two_of_one_number_twice() -> None:
    a = {**PLAN, "host": "a", "idents": {"3": "12"}}
    same = {**PLAN, "host": "b", "victims": [7], "idents": {"7": "12"}, "victim_reasons": []}
    other = {**PLAN, "host": "b", "idents": {"3": "3 of b"}}
    for second, count in ((same, "1 job\n"), (other, "2 jobs\n")):
        planned = Planned(feasible=True, plan={**a, "hosts": [a, second]})
        first = plan_text(planned, ResourceRequest(gpus=4), Style()).splitlines(keepends=True)[0]
        assert first == f"would start on 4 GPUs of each of 2 hosts after stopping {count}"

"""Quotas, budgets and the wait before anyone is stopped, by a whole topod with a configuration file."""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon_process import ROOT, Topod
from topod.model.job import JobSpec, Secret
from topod.model.request import ResourceRequest
from topod.protocol.client import RemoteError
from topod.protocol.replies import Configuration, Fairness, Planned
from topod.protocol.requests import DryRun, GetConfig, GetFairness
from topod.protocol.views import BudgetView, QuotaView

RULES = """
[fairness]
preemption_cap = 0
preemption_boost = 50

[[quota]]
label = "team=vision"
gpus = 2

[[budget]]
label = "service=chat"
min_running = 2
"""


@pytest.fixture
def topod(tmp_path: Path) -> Iterator[Topod]:
    config = tmp_path / "topod.toml"
    config.write_text(RULES)
    with Topod(tmp_path / "d") as topod:
        topod.start("--config", str(config))
        yield topod


def topoctl(topod: Topod, *words: str) -> str:
    command = [sys.executable, "-m", "topoctl", "--socket", str(topod.socket), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 10), done.stderr  # 10: a plan that stops somebody
    return done.stdout


def test_rules_of_the_configuration_file_bind_a_real_daemon(topod: Topod) -> None:
    vision = {"team": "vision"}
    one = topod.submit("sleep", "600", gpus=1, priority=1000, labels=vision)
    two = topod.submit("sleep", "600", gpus=2, priority=1000, labels=vision)
    assert topod.job(two.id).reason == "the quota of label team=vision is 2 GPUs, 1 held: 1 is left, 2 asked"
    with pytest.raises(RemoteError, match="the quota of label team=vision is 2 GPUs, 3 asked"):
        topod.submit("sleep", "600", gpus=3, labels=vision)
    spec = JobSpec(name="t", command=("true",), labels=vision, request=ResourceRequest(gpus=3))
    planned = topod.ask(DryRun(spec=spec))
    told = "the quota of label team=vision is 2 GPUs, 3 asked"
    assert planned == Planned(feasible=False, never=True, reason=told)
    secret = JobSpec(name="t", command=("true",), secrets=(Secret(name="k", source="/nowhere/k"),))
    planned = topod.ask(DryRun(spec=secret))
    assert isinstance(planned, Planned)
    assert (planned.never, planned.reason[:9]) == (True, "secret k:")
    replicas = [
        topod.submit("sleep", "600", gpus=2, priority=100, labels={"service": "chat"}, name="chat")
        for _ in range(3)
    ]
    for job in (one, *replicas):
        assert topod.wait(job.id, "running").state == "running"

    urgent = topod.submit("sleep", "600", gpus=3, priority=1000)
    assert topod.wait(urgent.id, "running").state == "running"
    left = [topod.job(job.id) for job in replicas]
    assert sorted(job.state for job in left) == ["pending", "running", "running"]
    [stopped] = [job for job in left if job.state == "pending"]
    assert stopped.effective_priority == 150
    more = topod.submit("sleep", "600", gpus=2, priority=1000)
    assert "service=chat must keep 2 running" in topod.job(more.id).reason

    assert topod.ask(GetFairness()) == Fairness(
        quotas=[QuotaView(scope="label", key="team", value="vision", gpus=1, limit=2)],
        budgets=[BudgetView(label="service", value="chat", running=2, min_running=2, may_stop=0)],
    )
    assert topoctl(topod, "quota") == (
        "QUOTA OF     GPUS  LIMIT  LEFT\n"
        "team=vision     1      2     1\n"
        "\n"
        "SERVICE       RUNNING  MUST KEEP  MAY STOP\n"
        "service=chat        2          2         0\n"
    )
    assert f" {stopped.id} chat" in topoctl(topod, "ps")
    assert "low>150" in topoctl(topod, "ps")
    assert "low (100), effective 150 after 1 preemption" in topoctl(topod, "show", str(stopped.id))


def test_who_asks_is_told_of_the_own_quota_before_the_first_job(tmp_path: Path) -> None:
    config = tmp_path / "topod.toml"
    config.write_text("[[quota]]\nuser = '*'\ngpus = 6\n[[quota]]\nuser = 'alice'\ngpus = 2\n")
    me = pwd.getpwuid(os.geteuid()).pw_name
    with Topod(tmp_path / "d") as topod:
        topod.start("--config", str(config))
        told = topod.ask(GetFairness(by="mallory"))  # the name comes from the kernel
        assert isinstance(told, Fairness)
        assert {(use.value, use.gpus, use.limit) for use in told.quotas} == {("alice", 0, 2), (me, 0, 6)}


def test_a_wait_asked_for_on_the_command_line_spares_everyone_until_it_is_over(topod: Topod) -> None:
    batch = topod.submit("sleep", "600", gpus=8, priority=100)
    assert topod.wait(batch.id, "running").state == "running"
    told = topoctl(topod, "plan", "--gpus", "2", "--priority", "high", "--wait-before-preempt", "1h")
    assert "first waits 1 h for free GPUs" in told
    words = ("--gpus", "2", "--priority", "high", "--wait-before-preempt", "1h", "--", "sleep", "600")
    topoctl(topod, "submit", *words)
    job = topod.job(batch.id + 1)
    assert job.reason.endswith(" s more for free GPUs before anyone is stopped")
    assert topod.job(batch.id).state == "running"
    quick = topod.submit("sleep", "600", gpus=2, priority=1000, wait_before_preempt_seconds=0.2)
    assert topod.wait(quick.id, "running").state == "running"
    assert topod.job(batch.id).preemptions == 1


def test_a_reload_reads_the_folder_beside_the_file_and_config_show_tells_what_waits(tmp_path: Path) -> None:
    config, folder = tmp_path / "topod.toml", tmp_path / "conf.d"
    config.write_text("[[quota]]\nuser = '*'\ngpus = 6\n")
    folder.mkdir()
    with Topod(tmp_path / "d") as topod:
        topod.start("--config", str(config))

        def told() -> dict[str, tuple[object, str, str]]:
            found = topod.ask(GetConfig())
            assert isinstance(found, Configuration)
            return {row.key: (row.value, row.origin, row.waits) for row in found.rows}

        (folder / "10.toml").write_text("[[quota]]\nlabel = 'team=a'\ngpus = 2\n[logs]\nmax_bytes = '5M'\n")
        assert told()["quota 2"] == (None, "-", "reload")
        assert topod.process is not None
        topod.process.send_signal(signal.SIGHUP)
        topod.until(lambda: "config.reloaded" in topod.log.read_text())
        now = told()
        assert now["quota 1"] == ({"gpus": 6, "user": "*"}, f"{config}:1", "")
        assert now["quota 2"] == ({"gpus": 2, "label": "team=a"}, f"{folder}/10.toml:1", "")
        assert now["logs.max_bytes"] == (100 << 20, "default", "restart")
        assert now["--runtime"] == ("process", "--runtime", "")
        quotas = topod.ask(GetFairness())
        assert isinstance(quotas, Fairness)
        assert "team" in [quota.key for quota in quotas.quotas]

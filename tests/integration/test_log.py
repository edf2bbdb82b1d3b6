"""The log of a real topod: one line for each decision and preemption, for the journal; no secret in it."""

import json
from pathlib import Path
from typing import Any

from tests.integration.daemon_process import Topod
from topod.model.job import CheckpointHook

SECRET = "hunter2-in-the-dark"


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line[3:]) for line in log.read_text().splitlines()]


def test_decisions_and_preemptions_are_told_in_a_line_each_and_secrets_in_none(tmp_path: Path) -> None:
    with Topod(tmp_path / "t") as topod:
        topod.log.touch()
        found = topod.log.stat()
        topod.environment |= {
            "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}",
            "TOPOD_LOG_FORMAT": "json",
        }
        topod.start()
        told = ("sh", "-c", f"echo {SECRET}; exec sleep 300", f"--token={SECRET}")
        hook = CheckpointHook(command=("sh", "-c", f"echo {SECRET}; exit 3"))
        low = topod.submit(*told, gpus=8, priority=100, env={"API_KEY": SECRET}, checkpoint=hook)
        topod.wait(low.id, "running")
        high = topod.submit(*told, gpus=4, priority=1000, affinity="nvlink", env={"API_KEY": SECRET})
        topod.wait(high.id, "running")
        topod.until(lambda: '"preemption"' in topod.log.read_text())
        topod.cancel(high.id)
        topod.wait(high.id)
        assert SECRET in str(topod.events())
    text = topod.log.read_text()
    assert SECRET not in text
    assert all(line[:3] in {"<3>", "<4>", "<6>", "<7>"} for line in text.splitlines())
    decisions = [line for line in lines(topod.log) if line["message"] == "decision"]
    first, second = decisions[0], next(line for line in decisions if line["job"] == high.id)
    assert (first["job"], first["outcome"], first["gpus"]) == (low.id, "placed", "0-7")
    assert (second["outcome"], second["victims"]) == ("preempting", [low.id])
    assert second["wanted"] == "4 GPUs, nvlink guaranteed"
    assert second["cost"]["victims"] == [[100, 1]]
    assert second["decide_ms"] > 0
    (done,) = [line for line in lines(topod.log) if line["message"] == "preemption"]
    assert (done["job"], done["outcome"], done["victims"]) == (high.id, "completed", [low.id])
    assert {"decide_ms", "create_ms", "stop_ms", "free_ms", "start_ms", "total_ms"} <= done.keys()
    assert any(line["message"] == "hook.failed" for line in lines(topod.log))

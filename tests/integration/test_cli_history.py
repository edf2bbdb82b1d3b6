"""`topoctl history --by`: who used how much, over preemptions, restarts of topod and running jobs."""

from pathlib import Path

import pytest

from tests.integration.daemon_process import topod_in
from tests.integration.test_cli import Cli


def test_gpu_time_is_summed_over_runs_and_users(tmp_path: Path) -> None:
    for topod in topod_in(tmp_path):
        cli = Cli(topod)
        done = [
            topod.submit("true", gpus=2, labels={"team": "vision"}),
            topod.submit("false", labels={"team": "nlp"}),
        ]
        for job in done:
            topod.wait(job.id)
        victim = topod.submit("sleep", "1000", gpus=8, priority=100, labels={"team": "vision"})
        topod.wait(victim.id, "running")
        topod.wait(topod.submit("true", gpus=8, priority=1000).id)
        topod.wait(victim.id, "running")
        topod.kill()
        topod.start()
        topod.wait(victim.id, "running")
        by_team = {entry["key"]: entry for entry in cli.json("history", "--by", "label:team")}
        assert set(by_team) == {"vision", "nlp", "-"}
        vision = by_team["vision"]
        assert (vision["jobs"], vision["succeeded"], vision["open"], vision["preemptions"]) == (2, 1, 1, 1)
        assert by_team["nlp"]["failed"] == 1
        assert by_team["nlp"]["gpu_seconds"] == 0
        # What the earlier runs took is on record, and the present one counts on top.
        recorded = topod.job(victim.id).gpu_seconds + topod.job(done[0].id).gpu_seconds
        assert vision["gpu_seconds"] > recorded > 0
        (me,) = cli.json("history", "--by", "user", "--since", "1h")
        assert me["jobs"] == 4
        assert me["waited_median"] >= 0
        assert "GPU-HOURS" in cli.out("history", "--by", "user")
        assert cli.error("history", "--by", "team", status=2).startswith(
            "error: --by: must be user or label:KEY"
        )


def test_a_negative_priority_needs_no_dashes(tmp_path: Path) -> None:
    for topod in topod_in(tmp_path):
        job = topod.submit("sleep", "1000", gpus=8)
        topod.wait(job.id, "running")
        cli = Cli(topod)
        assert cli.out("priority", "1", "-3") == "Job 1 (t) has priority -3\n"
        assert topod.job(1).priority == -3
        assert "must be low" in cli.error("priority", "1", "--hihg", status=2)


@pytest.mark.parametrize("raised", [True, False])
def test_a_priority_that_changes_moves_the_line_between_who_stays_and_who_goes(
    tmp_path: Path, *, raised: bool
) -> None:
    for topod in topod_in(tmp_path):
        runs = topod.submit("sleep", "1000", gpus=8, priority=500)
        topod.wait(runs.id, "running")
        waits = topod.submit("sleep", "1001", gpus=8, priority=500)
        cli = Cli(topod)
        cli.out("priority", str(runs.id), "900" if raised else "100")
        if raised:
            assert topod.job(waits.id).state == "pending"
            cli.out("priority", str(waits.id), "901")
        assert topod.wait(waits.id, "running").state == "running"
        assert topod.job(runs.id).preemptions == 1

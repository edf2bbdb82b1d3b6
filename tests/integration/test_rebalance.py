"""Jobs that move, as an administrator has them moved: a real topod, the process runtime, an emulated DGX-1."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon_process import Topod, topod_in
from tests.integration.test_cli import Cli
from topod.model.request import Affinity
from topod.protocol.client import RemoteError
from topod.protocol.replies import Moves
from topod.protocol.requests import Cancel, Drain, MakeMoves, PlanMoves

PLAN = PlanMoves(affinity=Affinity.NVLINK_ALL)


@pytest.fixture
def topod(tmp_path: Path) -> Iterator[Topod]:
    """A host with a job on GPU 0, 1, 4 and 5 each; GPUs 0-3 and 4-7 are all linked."""
    for topod in topod_in(tmp_path / "d"):
        scatter(topod)
        yield topod


def scatter(topod: Topod, *command: str) -> list[int]:
    """Leave one job on GPU 0, 1, 4 and 5 each; return them in that order."""
    run = command or ("sleep", "600")
    jobs = [topod.submit(*run, gpus=1, priority=100).id for _ in range(8)]
    placed = {topod.wait(ident, "running").gpu_indices[0]: ident for ident in jobs}
    topod.ask(Cancel(jobs=[placed[gpu] for gpu in (2, 3, 6, 7)]))
    for gpu in (2, 3, 6, 7):
        topod.wait(placed[gpu])
    return [placed[gpu] for gpu in (0, 1, 4, 5)]


def ask(topod: Topod, request: PlanMoves | MakeMoves) -> Moves:
    reply = topod.ask(request)
    assert isinstance(reply, Moves)
    return reply


def free(topod: Topod, jobs: list[int]) -> set[int]:
    return set(range(8)) - {gpu for ident in jobs for gpu in topod.job(ident).gpu_indices}


def test_two_jobs_on_two_pairs_move_so_that_four_linked_gpus_are_free(topod: Topod) -> None:
    cli = Cli(topod)
    planned = cli.json("rebalance", "--affinity", "nvlink-all", status=10)
    assert [len(planned["plan"][when]["group"]) for when in ("before", "after")] == [2, 4]
    moves = {move["job"]: move["gpus"] for move in planned["plan"]["moves"]}
    assert len(moves) == 2
    assert planned["plan"]["alternative"]["group"] != planned["plan"]["after"]["group"]
    done = cli.run("rebalance", "--affinity", "nvlink-all", "--apply", "--wait")
    assert "moving 2 jobs" in done.stdout
    for ident, gpus in moves.items():
        assert f"job {ident} (t) runs on GPU {gpus[0]}" in done.stderr
        view = topod.job(ident)
        assert (view.gpu_indices, view.moves, view.preemptions, view.starts) == (gpus, 1, 0, 2)
    assert "nothing to move" in cli.out("rebalance", "--affinity", "nvlink-all")


def test_the_plan_reads_well_and_asks_nobody_offline(topod: Topod, tmp_path: Path) -> None:
    cli = Cli(topod)
    text = cli.run("rebalance", "--affinity", "nvlink-all", status=10).stdout
    assert text.splitlines()[0] == "would move 2 jobs"
    assert "becomes part of the group" in text
    assert "next best" in text
    document = tmp_path / "host.json"
    document.write_text(json.dumps(cli.json("topo")))
    offline = cli.json("rebalance", "--affinity", "nvlink-all", "--from", str(document), status=10)
    online = cli.json("rebalance", "--affinity", "nvlink-all", status=10)
    places = [[(move["job"], move["gpus"]) for move in told["plan"]["moves"]] for told in (offline, online)]
    assert places[0] == places[1]


def test_more_than_can_be_brought_together_is_said_and_nobody_moves(topod: Topod) -> None:
    cli = Cli(topod)
    words = ("rebalance", "--gpus", "5", "--affinity", "nvlink-all")
    assert "cannot be brought together" in cli.run(*words, status=11).stdout
    cli.run(*words, "--apply", status=11)
    with pytest.raises(RemoteError, match="not so many"):
        ask(topod, MakeMoves(plan=PlanMoves(affinity=Affinity.NVLINK_ALL, gpus=5)))


def test_plan_names_moves_that_are_cheaper_than_stopping_others(topod: Topod) -> None:
    cli = Cli(topod)
    words = ("--gpus", "4", "--affinity", "nvlink-all", "--cpus", "0")
    planned = cli.json("plan", "--priority", "high", *words, status=10)
    assert len(planned["plan"]["victims"]) == 2
    instead = planned["plan"]["moves_instead"]
    assert len(instead["moves"]) == 2
    assert instead["command"].split()[:2] == ["topoctl", "rebalance"]
    text = cli.run("plan", "--priority", "high", *words, status=10).stdout
    assert "nobody goes back into the queue when job" in text
    # One of equal priority may stop nobody; it is told that moves would help.
    refused = cli.json("plan", "--priority", "low", *words, status=11)
    assert any("would make room" in detail for detail in refused["details"])
    cli.run(*instead["command"].split()[1:], "--apply", "--wait")
    assert not cli.json("plan", "--priority", "low", *words)["plan"]["victims"]


def test_moves_that_were_planned_on_another_host_are_refused(topod: Topod) -> None:
    told = ask(topod, PLAN)
    expected = {move["job"]: move["gpus"] for move in told.plan["moves"]}
    late = topod.submit("sleep", "600", gpus=1, priority=100)
    topod.wait(late.id, "running")
    with pytest.raises(RemoteError, match="has changed"):
        ask(topod, MakeMoves(plan=PLAN, expected=expected))
    assert {topod.job(ident).state for ident in expected} == {"running"}


def test_nobody_is_moved_on_a_drained_host(topod: Topod) -> None:
    topod.ask(Drain(reason="fan"))
    with pytest.raises(RemoteError, match="fan"):
        ask(topod, MakeMoves(plan=PLAN))


def test_goals_that_cannot_be_meant_are_refused(topod: Topod) -> None:
    for plan in (PlanMoves(gpus=9), PlanMoves(gpus=0), PlanMoves(cpus=4), PlanMoves(most=0)):
        with pytest.raises(RemoteError, match=r"gpus|restarts"):
            topod.ask(plan)


@pytest.mark.parametrize("crash", [2, 6, 10, 14, 18, 23, 28, 34])
def test_moves_survive_sigkill_at_any_point(tmp_path: Path, crash: int) -> None:
    with Topod(tmp_path / "d") as topod:
        topod.start()
        runs = tmp_path / "runs"
        jobs = scatter(topod, "sh", "-c", f"echo $TOPOD_JOB_ID >> {runs}; exec sleep 600")
        topod.stop()
        topod.start("--crash-at", str(crash), wait=False)  # it may die before it answers
        with contextlib.suppress(Exception):
            topod.until_it_answers()
            topod.ask(MakeMoves(plan=PLAN), timeout=3.0)
        topod.crashed(timeout=5.0)
        if topod.process is not None:
            topod.kill()
        topod.start()
        topod.until(lambda: all(topod.job(i).state == "running" and not topod.job(i).moving_to for i in jobs))
        views = [topod.job(ident) for ident in jobs]
        assert sum(view.moves for view in views) in (0, 2)  # both, or none where nobody heard of it
        if any(view.moves for view in views):
            assert free(topod, jobs) in ({0, 1, 2, 3}, {4, 5, 6, 7})
        # Each start that topod counted was one, and a command writes its line a moment later.
        starts = {str(view.id): view.starts for view in views}
        topod.until(lambda: Counter(word for word in runs.read_text().split() if word in starts) == starts)

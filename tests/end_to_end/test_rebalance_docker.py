"""Jobs that move, with a real engine: containers are stopped and made anew at their new places."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.test_preemption_docker import Site
from tests.engine import PrivateEngine

pytestmark = pytest.mark.docker

WORKER = (
    'echo "attempt $TOPOD_ATTEMPT on $TOPOD_GPU_INDICES"; '
    'trap "echo told to stop; exit 0" TERM; while :; do sleep 0.05; done'
)


@pytest.fixture
def site(tmp_path: Path, engine: PrivateEngine) -> Iterator[Site]:
    site = Site(tmp_path / "t", engine, "dgx1")
    with site.topod:
        yield site


def test_two_jobs_on_two_pairs_move_so_that_four_linked_gpus_are_free(site: Site) -> None:
    jobs = [
        site.submit(f"work-{n}", WORKER, "--priority", "low", "--gpus", "1", "--cpus", "0") for n in range(8)
    ]
    placed = {site.topod.wait(job, "running").gpu_indices[0]: job for job in jobs}
    for job in jobs:
        site.topod.until(lambda job=job: "attempt 1" in site.log(job))  # type: ignore[misc]  # bound now
    ended = [str(placed[gpu]) for gpu in (2, 3, 6, 7)]
    site.topoctl("cancel", *ended)
    site.topoctl("wait", *ended, check=False)
    planned = json.loads(site.topoctl("rebalance", "--affinity", "nvlink-all", "-o", "json", check=False))[
        "plan"
    ]
    moves = {move["job"]: move["gpus"] for move in planned["moves"]}
    assert len(moves) == 2
    site.topoctl("rebalance", "--affinity", "nvlink-all", "--apply", "--wait")
    for job, gpus in moves.items():
        assert site.topod.job(job).gpu_indices == gpus
        assert "told to stop" in site.log(job, "--attempt", "1")
        site.topod.until(lambda job=job, gpus=gpus: f"attempt 2 on {gpus[0]}" in site.log(job))  # type: ignore[misc]  # bound now
    stay = {placed[gpu] for gpu in (0, 1, 4, 5)} - moves.keys()
    assert {site.topod.job(job).attempt for job in stay} == {1}
    held = {gpu for job in (*stay, *moves) for gpu in site.topod.job(job).gpu_indices}
    assert held in ({0, 1, 2, 3}, {4, 5, 6, 7})

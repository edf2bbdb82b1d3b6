"""`topoctl simulate` as people call it."""

import json
from pathlib import Path

import pytest

from topoctl import exit_codes
from topoctl.main import run

FLEET = '[[hosts]]\nhost = "rtx4090x8"\ncount = 2\n'
WORK = """
period = "4h"
[[online]]
name = "chat"
gpus = 2
affinity = "socket"
replicas = [1, 4]
peak_hour = 2
[[batch]]
name = "tune"
gpus = [1, 4]
per_hour = 30
run = ["20m", "1h"]
"""


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Return the paths of a small fleet and its jobs."""
    for name, text in (("fleet.toml", FLEET), ("work.toml", WORK)):
        (tmp_path / name).write_text(text)
    return [str(tmp_path / "fleet.toml"), str(tmp_path / "work.toml")]


def test_the_same_seed_gives_the_same_figures_in_one_process_and_in_two(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(*words: str) -> list[dict[str, object]]:
        assert run(["simulate", *files, "--policy", "topod,imp", "-o", "json", *words]) == exit_codes.OK
        runs: list[dict[str, object]] = json.loads(capsys.readouterr().out)["runs"]
        for one in runs:
            for key in ("took_seconds", "search_median", "search_p95"):
                one.pop(key)
        return runs

    alone = figures("--workers", "1", "--runs", "2")
    assert alone == figures("--workers", "2", "--runs", "2")
    assert [(one["policy"], one["seed"]) for one in alone] == [
        ("topod", 1),
        ("topod", 2),
        ("imp", 1),
        ("imp", 2),
    ]
    assert alone[0] != {**alone[1], "seed": 1}
    assert all(one["satisfied"] in {1, None} for one in alone if one["policy"] == "topod")


def test_the_table_names_policies_and_how_to_make_it_again(
    files: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "day.html"
    assert (
        run(["simulate", *files, "--policy", "topod,slurm", "--runs", "2", "--html", str(page)])
        == exit_codes.OK
    )
    told = capsys.readouterr()
    assert told.out.startswith("2 hosts, 16 GPUs, 4 hours, ")
    assert "mean of 2 runs ± 95 % confidence" in told.out
    assert "topod" in told.out.splitlines()[2]
    assert told.out.splitlines()[-1] == f"topoctl simulate {' '.join(files)} --policy topod,slurm --runs 2"
    text = page.read_text()
    assert "<svg" in text
    assert "Affinity" in text or "affinity" in text


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--policy", "topodd"], exit_codes.USAGE, "--policy: no policy is called 'topodd'"),
        (["--period", "0"], exit_codes.USAGE, "--period: nothing happens in no time"),
        (["--period", "soon"], exit_codes.USAGE, "--period: not a duration: 'soon'"),
        (["--trace", "x"], exit_codes.USAGE, "give a file of hosts and one of jobs"),
        (["--runs", "0"], exit_codes.USAGE, "0 is not in the range"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(
    files: list[str], capsys: pytest.CaptureFixture[str], words: list[str], status: int, told: str
) -> None:
    assert run(["simulate", *files, *words]) == status
    assert told in capsys.readouterr().err


def test_jobs_that_no_host_can_ever_run_are_refused(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(files[1])
    path.write_text(WORK.replace("socket", "nvlink"))
    assert run(["simulate", *files]) == exit_codes.USAGE
    assert "chat: no host of the fleet ever has 2 GPUs with affinity nvlink" in capsys.readouterr().err


def test_the_example_is_written_once_and_can_be_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["simulate", "--example", str(tmp_path)]) == exit_codes.OK
    assert run(["simulate", "--example", str(tmp_path)]) == exit_codes.CONFLICT
    assert "fleet.toml exists; it is not overwritten" in capsys.readouterr().err
    words = [str(tmp_path / "fleet.toml"), str(tmp_path / "work.toml"), "--policy", "topod", "--period", "2h"]
    assert run(["simulate", *words]) == exit_codes.OK
    assert capsys.readouterr().out.startswith("12 hosts, 96 GPUs, 2 hours, ")

"""`ps` and `history` as text."""

import pytest

from tests.unit.topoctl.views import NOW, job, pending
from topoctl.render.jobs import count_ranges, history_table, jobs_table, ranges
from topoctl.render.style import Style

REASON = (
    "4 GPUs on one NUMA node: node 0 has 3 that can be freed, node 1 has 2: job 17 (priority 1000) holds 2"
)
JOBS = [
    job(12, name="train", priority=1000, gpu_indices=[0, 1, 2, 3]),
    job(13, name="a-long-name-for-a-job", user="a-long-user", starts=3, gpu_indices=[4, 6], priority=250),
    pending(104, REASON, gpus=4),
    pending(105, "the host is drained", gpus=0, cpus=0),
]


def test_ps_fits_80_columns_and_cuts_only_the_reason_and_long_names() -> None:
    assert jobs_table(JOBS, NOW, Style(), wide=False) == (
        " ID NAME         USER     PRIO   STATE    TIME GPUS CPUS RST REASON\n"
        " 12 train        alice    high   running 3m12s 0-3  20     0\n"
        " 13 a-long-name… a-long-… 250    running 3m12s 4,6  20     2\n"
        "104 train        alice    normal pending 5m00s x4   auto   0 4 GPUs on one NUMA…\n"
        "105 train        alice    normal pending 5m00s -    -      0 the host is drained\n"
    )


def test_wide_ps_cuts_nothing_and_lists_the_cpus() -> None:
    lines = jobs_table(JOBS, NOW, Style(), wide=True).splitlines()
    assert lines[0].split()[-2:] == ["RESTARTS", "REASON"]
    assert "a-long-name-for-a-job" in lines[2]
    assert "0-9,40-49" in lines[1]
    assert lines[3].endswith(REASON)


def test_what_is_piped_has_the_whole_reason() -> None:
    lines = jobs_table(JOBS, NOW, Style(piped=True), wide=False).splitlines()
    assert lines[3].endswith(f"x4    auto    0  {REASON}")
    assert "a-long-name…" in lines[2]


@pytest.mark.parametrize("width", [80, 100, 132])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for text in (jobs_table(JOBS, NOW, Style(width=width), wide=False),):
        assert max(map(len, text.splitlines())) <= width


def test_without_unicode_everything_is_ascii() -> None:
    assert jobs_table(JOBS, NOW, Style(unicode=False), wide=False).isascii()


def test_colour_changes_no_column() -> None:
    plain = jobs_table(JOBS, NOW, Style(), wide=False)
    painted = jobs_table(JOBS, NOW, Style(color=True), wide=False)
    assert "\x1b[32mrunning\x1b[0m" in painted
    without = painted
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[32m"):
        without = without.replace(code, "")
    assert without == plain


def test_a_name_or_reason_cannot_steer_the_terminal() -> None:
    text = jobs_table([pending(1, "\x1b[2Jgone\nfake", name="\x07bell")], NOW, Style(), wide=True)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert len(text.splitlines()) == 2


def test_no_jobs_are_a_head_without_lines() -> None:
    assert jobs_table([], NOW, Style(), wide=False).count("\n") == 1


def test_history_tells_exit_code_length_and_gpu_time() -> None:
    ended = job(7, state="failed", exit_code=3, ended_at=NOW - 60, gpu_seconds=264.0, reason="exit code 3")
    never = job(8, state="cancelled", started_at=None, ended_at=NOW, reason="cancelled by bob", starts=0)
    assert history_table([ended, never], NOW, Style(), wide=False) == (
        "ID NAME  USER  PRIO   STATE     EXIT   RAN ENDED     GPU-TIME RST REASON\n"
        " 7 train alice normal failed       3 2m12s 1m00s ago    4m24s   0 exit code 3\n"
        " 8 train alice normal cancelled    -     - 0s ago          0s   0 cancelled by…\n"
    )


def test_numbers_are_told_as_ranges() -> None:
    assert ranges([3, 1, 0, 2, 7]) == "0-3,7"
    assert ranges([5]) == "5"
    assert count_ranges("0-19,40") == 21

"""The calls to NVIDIA's cuda-checkpoint, against a stand-in with the states of its processes in files."""

from pathlib import Path

import pytest

from topod.adapters.cuda_checkpoint import CudaCheckpoint
from topod.errors import JobRejectedError

STAND_IN = """#!/bin/sh
here=$(dirname "$0")/states
case "$*" in
"--get-state --pid "*) cat "$here/$3" 2>/dev/null || { echo "not a CUDA process"; exit 1; } ;;
"--toggle --pid "*)
    [ ! -e "$here/$3.stuck" ] || { echo "UVM memory is not supported"; exit 1; }
    case "$(cat "$here/$3")" in
    running) echo checkpointed > "$here/$3" ;;
    checkpointed) echo running > "$here/$3" ;;
    esac ;;
*) echo "unknown option"; exit 2 ;;
esac
"""


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tool = tmp_path / "cuda-checkpoint"
    tool.write_text(STAND_IN)
    tool.chmod(0o755)
    (tmp_path / "states").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "states"


def test_only_cuda_processes_are_suspended_and_resumed(states: Path) -> None:
    for pid in (11, 13):
        (states / str(pid)).write_text("running\n")
    cuda = CudaCheckpoint()
    assert cuda.installed
    assert cuda.suspend((10, 11, 12, 13), 10.0) == (11, 13)
    assert (states / "11").read_text() == "checkpointed\n"
    assert cuda.suspend((11, 13), 10.0) == (), "done already"
    assert cuda.resume((11, 12, 13), 10.0) == (11, 13)
    assert (states / "13").read_text() == "running\n"


def test_one_that_cannot_be_suspended_leaves_all_running(states: Path) -> None:
    for pid in (11, 13):
        (states / str(pid)).write_text("running\n")
    (states / "13.stuck").touch()
    with pytest.raises(JobRejectedError, match="UVM memory is not supported"):
        CudaCheckpoint().suspend((11, 13), 10.0)
    assert (states / "11").read_text() == "running\n"


def test_without_the_tool_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/none")
    assert not CudaCheckpoint().installed
    assert CudaCheckpoint().suspend((1,), 1.0) == ()

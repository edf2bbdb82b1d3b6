"""`nvidia-smi topo -m` through stand-in scripts on a PATH of the test's own."""

import os
import signal
import time
from pathlib import Path

import pytest

from topod.adapters import nvidia_smi
from topod.errors import ProbeError

MATRIX = "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\nGPU0\t X \tNV2\t0-23\t0\nGPU1\tNV2\t X \t0-23\t0\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def install(folder: Path, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def ended(pid: int) -> bool:
    """Whether the process is gone, or dead and merely not reaped by its new parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_matrix_comes_back_as_printed(path: Path) -> None:
    install(path, f"[ \"$*\" = 'topo -m' ] || exit 9\nprintf '%s' '{MATRIX}'")
    assert nvidia_smi.topology_matrix(30) == MATRIX


def test_the_first_line_of_an_error_is_reported(path: Path) -> None:
    install(
        path, 'echo; echo "Failed to initialize NVML: Driver/library version mismatch"; echo more; exit 18'
    )
    with pytest.raises(
        ProbeError, match=r"status 18: Failed to initialize NVML: Driver/library version mismatch$"
    ):
        nvidia_smi.topology_matrix(30)


def test_an_error_on_stderr_is_reported_too(path: Path) -> None:
    install(path, "echo 'Unable to determine the device handle' >&2; exit 255")
    with pytest.raises(ProbeError, match="status 255: Unable to determine the device handle"):
        nvidia_smi.topology_matrix(30)


def test_a_silent_failure_says_that_there_was_no_message(path: Path) -> None:
    install(path, "exit 255")
    with pytest.raises(ProbeError, match="status 255: no message"):
        nvidia_smi.topology_matrix(30)


def test_without_the_program_the_error_says_so(path: Path) -> None:
    with pytest.raises(ProbeError, match=r"^no-such-smi is not installed$"):
        nvidia_smi.topology_matrix(30, program="no-such-smi")


def test_a_program_that_cannot_be_run_says_why(path: Path) -> None:
    install(path, "exit 0")
    (path / "nvidia-smi").chmod(0o644)
    with pytest.raises(ProbeError, match="cannot be started"):
        nvidia_smi.topology_matrix(30, program=str(path / "nvidia-smi"))


def test_a_hanging_program_and_its_children_are_killed(path: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    install(path, f"sleep 600 & echo $! $$ >{pids}; echo begun; wait")
    with pytest.raises(ProbeError, match=r"nvidia-smi topo -m did not end within 1 s"):
        nvidia_smi.topology_matrix(1)
    numbers = [int(pid) for pid in pids.read_text().split()]
    assert len(numbers) == 2
    deadline = time.monotonic() + 30
    while not all(ended(pid) for pid in numbers):
        assert time.monotonic() < deadline, "the group was not killed"
        os.sched_yield()


def test_output_without_end_is_cut_off(path: Path) -> None:
    install(path, "exec yes GPU0")
    with pytest.raises(ProbeError, match="did not end within"):
        nvidia_smi.topology_matrix(1)


def test_a_process_that_cannot_be_killed_is_left_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(path, "exec sleep 600")
    monkeypatch.setattr(os, "killpg", lambda _group, _signal: None)
    with pytest.raises(ProbeError, match="did not end within"):
        nvidia_smi.topology_matrix(0.05)
    (left,) = nvidia_smi._LEFT_BEHIND
    assert left.poll() is None
    left.send_signal(signal.SIGKILL)
    left.wait(30)
    install(path, "echo matrix")
    assert nvidia_smi.topology_matrix(30) == "matrix\n"
    assert nvidia_smi._LEFT_BEHIND == []

"""NVIDIA's `cuda-checkpoint`: moves the GPU state of processes into their memory and back.

Written against the tool's own help (driver 550 or newer): `--get-state --pid N` prints `running` or
`checkpointed` and fails for a process without CUDA; `--toggle --pid N` changes from one to the other.
"""

import logging
import shutil
import subprocess
import time
from collections.abc import Iterable
from typing import Final

from topod.errors import JobRejectedError

log = logging.getLogger(__name__)

PROGRAM: Final = "cuda-checkpoint"
RUNNING: Final = "running"
CHECKPOINTED: Final = "checkpointed"
STATE_SECONDS: Final = 10.0


class CudaCheckpoint:
    """The tool of this host, looked for in the search path at each use."""

    @property
    def installed(self) -> bool:
        """Whether the tool is there."""
        return shutil.which(PROGRAM) is not None

    def suspend(self, pids: Iterable[int], seconds: float) -> tuple[int, ...]:
        """Take the CUDA processes among `pids` off their GPUs; return them.

        Raises `JobRejectedError` when one cannot be; those already suspended are resumed first.
        """
        return self._toggle(pids, RUNNING, seconds)

    def resume(self, pids: Iterable[int], seconds: float) -> tuple[int, ...]:
        """Bring the suspended CUDA processes among `pids` back to their GPUs; return them.

        Raises `JobRejectedError` when one cannot be.
        """
        return self._toggle(pids, CHECKPOINTED, seconds)

    def _toggle(self, pids: Iterable[int], state: str, seconds: float) -> tuple[int, ...]:
        end = time.monotonic() + seconds
        done: list[int] = []
        for pid in pids:
            if self._run(("--get-state", "--pid", str(pid)), STATE_SECONDS) != (0, state):
                continue
            status, text = self._run(("--toggle", "--pid", str(pid)), max(0.5, end - time.monotonic()))
            if status != 0:
                self._undo(done)
                raise JobRejectedError(f"{PROGRAM} failed for process {pid}: {text or f'status {status}'}")
            done.append(pid)
        return tuple(done)

    def _undo(self, pids: Iterable[int]) -> None:
        for pid in pids:
            status, text = self._run(("--toggle", "--pid", str(pid)), STATE_SECONDS)
            if status != 0:
                log.warning("%s leaves process %d half way: %s", PROGRAM, pid, text)

    def _run(self, words: tuple[str, ...], seconds: float) -> tuple[int, str]:
        """Return the exit status and the first line of the output; status -1 when it did not end in time."""
        program = shutil.which(PROGRAM)
        if program is None:
            return -1, "it is not installed"
        try:
            done = subprocess.run(  # noqa: S603 - a fixed program with numbers
                [program, *words], capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return -1, f"no end within {seconds:.0f} s"
        except OSError as error:
            return -1, str(error)
        lines = (done.stdout + done.stderr).strip().splitlines()
        return done.returncode, lines[0].strip() if lines else ""

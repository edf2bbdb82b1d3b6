"""Ask every source at once, each within a bound, and merge what came back.

Rule: no source is needed. What could not be read becomes a problem in words, and on a host without GPUs jobs
without GPUs run. The sources are functions, so that this package needs none of the adapters.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from topod.discovery.evidence import MATRIX
from topod.discovery.gpufacts import GpuFacts
from topod.discovery.machine import MachineFacts
from topod.discovery.merge import merge
from topod.discovery.parse_smi_topo import Matrix, parse_matrix
from topod.errors import TopodError
from topod.model.topology import Topology

T = TypeVar("T")
Source = Callable[[float], T]
"""Reads something within the given number of seconds, or raises a `TopodError`."""

SLACK_SECONDS: Final = 0.5
"""How much longer than its timeout a source may take before it is left behind."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What was found out about a host."""

    topology: Topology
    notes: tuple[str, ...] = ()
    """Sentences on what was left out, inferred or in disagreement."""
    problems: tuple[str, ...] = ()
    """One per source that could not be read: `NVML library not found`."""


def discover(
    *,
    name: str,
    nvml: Source[GpuFacts] | None = None,
    matrix: Source[str] | None = None,
    machine: Source[MachineFacts] | None = None,
    timeout: float = 15.0,
) -> Discovery:
    """Return the host called `name` as the given sources describe it.

    `matrix` returns the text of `nvidia-smi topo -m`. A source that fails, or has not answered within
    `timeout` seconds (and half a second of grace), becomes a problem; it is not waited for.
    """
    parsed = None if matrix is None else lambda left: parse_matrix(matrix(left), MATRIX)
    from_nvml = _Call("NVML", nvml, timeout)
    from_smi = _Call[Matrix]("nvidia-smi", parsed, timeout)
    from_sysfs = _Call("sysfs", machine, timeout)
    deadline = time.monotonic() + timeout + SLACK_SECONDS
    gpu_facts, smi_matrix, facts = (
        from_nvml.result(deadline),
        from_smi.result(deadline),
        from_sysfs.result(deadline),
    )
    problems = tuple(call.problem for call in (from_nvml, from_smi, from_sysfs) if call.problem)
    topology, notes = merge(gpu_facts, facts, smi_matrix, name)
    for note in notes:
        _LOG.warning("topology of %s: %s", name, note)
    for problem in problems:
        _LOG.info("topology of %s: %s", name, problem)
    return Discovery(topology=topology, notes=notes, problems=problems)


class _Call(Generic[T]):
    """One source, asked in a thread of its own that nobody waits for longer than agreed."""

    def __init__(self, label: str, source: Source[T] | None, timeout: float) -> None:
        self.problem: str | None = None
        self._label = label
        self._answer: T | None = None
        self._failure: str | None = None
        self._done = threading.Event()
        self._asked = source is not None
        if source is not None:
            target = threading.Thread(
                target=self._run, args=(source, timeout), name=f"discover-{label}", daemon=True
            )
            target.start()

    def result(self, deadline: float) -> T | None:
        """Return the answer; None, with `problem` set, where there is none by the (monotonic) deadline."""
        if not self._asked:
            return None
        if not self._done.wait(max(deadline - time.monotonic(), 0.0)):
            self.problem = f"{self._label}: did not answer in time"
            return None
        self.problem = self._failure
        return self._answer

    def _run(self, source: Source[T], timeout: float) -> None:
        try:
            self._answer = source(timeout)
        except TopodError as error:
            named = error.message.startswith(self._label)
            self._failure = error.message if named else f"{self._label}: {error.message}"
        except Exception as error:  # noqa: BLE001 - a fault in one reader must not cost the others
            _LOG.exception("the %s source failed", self._label)
            self._failure = f"{self._label}: {type(error).__name__}: {error}"
        finally:
            self._done.set()

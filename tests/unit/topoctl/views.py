"""Jobs and events as topod tells of them, naming only what matters to a test."""

from typing import Any

from topod.model.job import JobSpec
from topod.protocol.views import EventView, JobView

NOW = 1_700_000_000.0


def job(ident: int = 1, **fields: Any) -> JobView:
    """Return a job that runs since 3m12s unless told otherwise."""
    given: dict[str, Any] = {
        "id": ident,
        "name": "train",
        "user": "alice",
        "state": "running",
        "priority": 500,
        "gpus": 2,
        "affinity": "any",
        "policy": "guaranteed",
        "cpus": "auto",
        "cpu_affinity": "numa",
        "submitted_at": NOW - 300,
        "started_at": NOW - 192,
        "starts": 1,
        "attempt": 1,
        "gpu_indices": [0, 1],
        "cpu_list": "0-9,40-49",
        "spec": JobSpec(name="train", command=("python", "train.py")),
    }
    return JobView(**{**given, **fields})


def pending(ident: int, reason: str, **fields: Any) -> JobView:
    """Return a job that waits."""
    given: dict[str, Any] = {
        "state": "pending",
        "reason": reason,
        "started_at": None,
        "starts": 0,
        "gpu_indices": [],
        "cpu_list": "",
    }
    return job(ident, **{**given, **fields})


def event(seq: int, name: str, text: str, at: float = NOW) -> EventView:
    """Return one event of job 12."""
    return EventView(seq=seq, at=at, name=name, job=12, text=text)

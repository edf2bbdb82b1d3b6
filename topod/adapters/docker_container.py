"""Reading what an engine says of one container (the answer to "inspect container"); pure."""

from datetime import datetime
from typing import Any, Final

from topod.adapters.docker_spec import ATTEMPT_LABEL, JOB_LABEL
from topod.model.container import ContainerStatus, Observed
from topod.model.job import JobId

NEVER: Final = "0001-01-01"
"""How the engine writes the time of what did not happen."""
OLD: Final = ".old"
"""Ends the name of a container that never ran and is being replaced."""
ENDED_STATES: Final = ("exited", "dead")


def ran(container: dict[str, Any]) -> bool:
    """Say whether it was ever started."""
    return not str(container["State"]["StartedAt"]).startswith(NEVER)


def epoch(text: str) -> float | None:
    """Return an engine's time as epoch seconds; None for what did not happen."""
    return None if text.startswith(NEVER) else datetime.fromisoformat(text).timestamp()


def observed(container: dict[str, Any]) -> Observed:
    """Return what the core wants to know of a container."""
    state, labels = container["State"], container["Config"]["Labels"]
    status = ContainerStatus.RUNNING
    if not ran(container):
        status = ContainerStatus.CREATED
    elif state["Status"] in ENDED_STATES:
        status = ContainerStatus.EXITED
    ended = status is ContainerStatus.EXITED
    started_at, ended_at = epoch(state["StartedAt"]), epoch(state["FinishedAt"])
    if started_at is not None and ended_at is not None:
        ended_at = max(started_at, ended_at)  # the engine can note a very short run the wrong way round
    return Observed(
        job=JobId(int(labels[JOB_LABEL])),
        attempt=int(labels[ATTEMPT_LABEL]),
        handle=container["Name"].removeprefix("/").removesuffix(OLD),
        status=status,
        exit_code=state["ExitCode"] if ended else None,
        out_of_memory=bool(state.get("OOMKilled")) and ended,
        started_at=started_at,
        ended_at=ended_at if ended else None,
    )

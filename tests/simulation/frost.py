"""Containers written to disk and restored, as an engine with CRIU does it on a bad day.

A box that is frozen ends with 137, as killed; its program goes on after the restore with what was left of it.
"""

from typing import TYPE_CHECKING

from tests.simulation.loop import LaterError
from topod.errors import JobRejectedError
from topod.model.container import ContainerStatus

if TYPE_CHECKING:
    from tests.simulation.engine import Box, Engine


def freeze(engine: "Engine", handle: str, name: str, seconds: float) -> float | None:
    """Begin to freeze a box; what was done is done."""
    box = engine.boxes.get(handle)
    if box is None:
        raise JobRejectedError("its container is gone")
    if not box.lives:
        if box.checkpoint == (name, box.started_at):
            return box.started_at
        raise JobRejectedError("its container does not run any more")
    if engine.chance.strikes("freeze.fails"):
        raise JobRejectedError("CRIU: criu failed: type NOTIFY errno 0")
    if engine.chance.strikes("freeze.times_out"):
        raise LaterError(seconds, _too_late)
    took = engine.chance.rng.uniform(0.0, min(seconds, 3.0))
    raise LaterError(took, lambda: _frozen(engine, box, name))


def _too_late() -> None:
    raise JobRejectedError("the engine did not do it in time")


def _frozen(engine: "Engine", box: "Box", name: str) -> float | None:
    if not box.lives or box.stuck:
        raise JobRejectedError("its container does not run any more")
    box.checkpoint = (name, box.started_at)
    box.left -= engine.world.now - box.began
    engine.world.say(f"container {box.handle} is frozen")
    engine.end(box, 137)
    return box.started_at


def restore(engine: "Engine", box: "Box", name: str) -> bool:
    """Say whether an ended box is to go on from that checkpoint now."""
    if box.status is ContainerStatus.CREATED:
        # The frozen one was removed by hand, and an order to make it came late.
        raise JobRejectedError(f"checkpoint {name} not found for container {box.handle}")
    if box.status is not ContainerStatus.EXITED or box.checkpoint != (name, box.started_at):
        return False
    if engine.chance.strikes("restore.rejected"):
        raise JobRejectedError("CRIU: criu failed: no such file or directory")
    if engine.chance.strikes("checkpoint.gone"):
        box.checkpoint = None
        return False
    box.exit_code = box.ended_at = None
    box.told.clear()
    return True

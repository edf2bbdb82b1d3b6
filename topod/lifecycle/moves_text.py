"""Moves as plain data and in words, for people and programs."""

from collections.abc import Mapping
from typing import Any

from topod.lifecycle.explaining import job_name
from topod.model.moves import FreeGpus, Move, MoveCost, Rebalance


def _free_data(free: FreeGpus) -> dict[str, Any]:
    return {
        "free": list(free.gpus),
        "group": list(free.group),
        "left": [list(groups) for groups in free.left],
    }


def move_cost_data(cost: MoveCost) -> dict[str, Any]:
    """Return the cost keys by name, in the order in which they are compared."""
    return {
        "restarts": [list(level) for level in cost.restarts],
        "affinity_lost": cost.affinity_lost,
        "cpu_affinity_lost": cost.cpu_affinity_lost,
        "work_lost_gpu_seconds": cost.work_lost / 1000,
        "links_lost": cost.links_lost,
    }


def moves_data(found: Rebalance) -> list[dict[str, Any]]:
    """Return each move with its reason."""
    return [
        {
            "job": job_name(move.job),
            "priority": move.priority,
            "gpus_before": list(move.gpus_before),
            "gpus": list(move.gpus),
            "cpus_before": str(move.cpus_before),
            "cpus": str(move.cpus),
            "affinity": move.affinity.value,
            "cpu_affinity": move.cpu_affinity.value,
            "work_lost_gpu_seconds": move.work / 1000,
            "why": _why(found, move),
        }
        for move in found.moves
    ]


def rebalance_data(
    found: Rebalance, fewer: Rebalance | None, names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the answer as plain JSON values.

    `fewer` is what one restart less would give, as the alternative; None where no job moves. `names` are the
    names of the jobs.
    """
    moves = moves_data(found)
    for entry in moves:
        entry["name"] = (names or {}).get(str(entry["job"]), "")
    return {
        "before": _free_data(found.before),
        "after": _free_data(found.after),
        "moves": moves,
        "cost": move_cost_data(found.cost),
        "reached": found.reached,
        "proven": found.proven,
        "room_gpus": list(found.ask_gpus),
        "room_cpus": str(found.ask_cpus),
        "alternative": None
        if fewer is None
        else {
            "moves": [
                {"job": entry["job"], "gpus_before": entry["gpus_before"], "gpus": entry["gpus"]}
                for entry in moves_data(fewer)
            ],
            "group": list(fewer.after.group),
            "reached": fewer.reached,
            "cost": move_cost_data(fewer.cost),
        },
    }


def _why(found: Rebalance, move: Move) -> str:
    together = set(found.after.group) | set(found.ask_gpus)
    freed = sorted(set(move.gpus_before) & together - set(move.gpus))
    if freed:
        what = "is free for the request" if found.ask_gpus else "becomes part of the group"
        return f"{_gpus(freed)} {what}" if len(freed) == 1 else f"{_gpus(freed)} {_plural(what)}"
    for other in found.moves:
        if other is not move and set(move.gpus_before) & set(other.gpus):
            return f"makes room for job {other.job}"
    if move.gpus == move.gpus_before:
        return "gives CPUs that others need beside their GPUs"
    return "leaves larger groups free"


def _gpus(indices: list[int]) -> str:
    return f"GPU{'' if len(indices) == 1 else 's'} {','.join(map(str, indices))}"


def _plural(what: str) -> str:
    return what.replace("is free", "are free").replace("becomes part", "become part")

"""Moves as plain data and in words, for people and programs."""

from collections.abc import Mapping
from typing import Any

from topod.flextopo.tables import TopologyTables
from topod.lifecycle.explaining import job_name
from topod.model.moves import FreeGpus, Goal, Move, MoveCost, Rebalance
from topod.model.occupancy import Occupancy
from topod.model.plan import Plan
from topod.model.request import PRIORITIES, ResourceRequest
from topod.rebalance.search import rebalance


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


def moves_data(found: Rebalance, idents: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return each move with its reason; `idents`: how people name jobs where that is not their number."""
    return [
        {
            "job": job_name(move.job),
            "ident": idents.get(move.job, move.job),
            "priority": move.priority,
            "gpus_before": list(move.gpus_before),
            "gpus": list(move.gpus),
            "cpus_before": str(move.cpus_before),
            "cpus": str(move.cpus),
            "affinity": move.affinity.value,
            "cpu_affinity": move.cpu_affinity.value,
            "work_lost_gpu_seconds": move.work / 1000,
            "why": _why(found, move, idents),
        }
        for move in found.moves
    ]


def rebalance_data(
    found: Rebalance,
    fewer: Rebalance | None,
    names: Mapping[str, str] | None = None,
    idents: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the answer as plain JSON values.

    `fewer` is what one restart less would give, as the alternative; None where no job moves. `names` are the
    names of the jobs, `idents` how people name them where that is not their number.
    """
    moves = moves_data(found, idents or {})
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
                {key: entry[key] for key in ("job", "ident", "gpus_before", "gpus")}
                for entry in moves_data(fewer, idents or {})
            ],
            "group": list(fewer.after.group),
            "reached": fewer.reached,
            "cost": move_cost_data(fewer.cost),
        },
    }


def moves_instead(
    tables: TopologyTables,
    occupancy: Occupancy,
    requests: Mapping[str, ResourceRequest],
    request: ResourceRequest,
    plan: Plan | None,
) -> dict[str, Any] | None:
    """Return the moves that would make room for a request where they cost no more restarts than its plan.

    They are cheaper than evicting: who moves goes on at once. `plan` is None where the request is refused;
    then any moves will do that rebalance would make by itself. None where there are none.
    """
    if not request.gpus or (plan is not None and not plan.victims):
        return None
    if occupancy.room is not None and occupancy.room.gpus < request.gpus:
        return None  # a quota, not the places of others, is in the way
    goal = Goal(
        affinity=request.affinity,
        ask=request,
        below=PRIORITIES["high"] if plan is None else request.priority,
        most=None if plan is None else len(plan.victims),
    )
    found = rebalance(tables, occupancy, requests, goal)
    if not found.reached or not found.moves:
        return None
    if plan is not None:
        lost = (found.cost.affinity_lost, found.cost.cpu_affinity_lost)
        missed = (plan.cost.affinity_steps, plan.cost.cpu_affinity_steps)
        if found.cost.restarts > plan.cost.victims or lost > missed:
            return None
    return {
        "moves": moves_data(found, {holder.job: holder.called for holder in occupancy.holders}),
        "cost": move_cost_data(found.cost),
        "gpus": list(found.ask_gpus),
        "cpus": str(found.ask_cpus),
        "command": _command(request, goal),
    }


def moves_advice(moves: Mapping[str, Any]) -> str:
    """Say which moves would make room, and how to have them made."""
    jobs = [str(move["ident"]) for move in moves["moves"]]
    names = f"job{'' if len(jobs) == 1 else 's'} {', '.join(jobs)}"
    return f"moving {names} would make room: {moves['command']}"


def _command(request: ResourceRequest, goal: Goal) -> str:
    words = ["topoctl rebalance", f"--gpus {request.gpus}", f"--affinity {request.affinity}"]
    if request.cpus:
        words.append(f"--cpus {request.cpus}")
    if goal.below != PRIORITIES["high"]:
        words.append(f"--below {goal.below}")
    return " ".join(words)


def _why(found: Rebalance, move: Move, idents: Mapping[str, str]) -> str:
    together = set(found.after.group) | set(found.ask_gpus)
    freed = sorted(set(move.gpus_before) & together - set(move.gpus))
    if freed:
        what = "is free for the request" if found.ask_gpus else "becomes part of the group"
        return f"{_gpus(freed)} {what}" if len(freed) == 1 else f"{_gpus(freed)} {_plural(what)}"
    for other in found.moves:
        if other is not move and set(move.gpus_before) & set(other.gpus):
            return f"makes room for job {idents.get(other.job, other.job)}"
    if move.gpus == move.gpus_before:
        return "gives CPUs that others need beside their GPUs"
    return "leaves larger groups free"


def _gpus(indices: list[int]) -> str:
    return f"GPU{'' if len(indices) == 1 else 's'} {','.join(map(str, indices))}"


def _plural(what: str) -> str:
    return what.replace("is free", "are free").replace("becomes part", "become part")

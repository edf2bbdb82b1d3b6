"""`topoctl rebalance`: move jobs so that free GPUs are together again."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from topoctl import exit_codes
from topoctl.render.jobs import ENDED, label
from topoctl.render.moves import gpus_text, moves_text
from topoctl.session import (
    TextOrJson,
    TextOrJsonOption,
    ask,
    ask_patiently,
    connect,
    note,
    one_job,
    show,
    show_json,
    style,
)
from topod.errors import UsageError
from topod.model.request import Affinity
from topod.protocol import jobfields
from topod.protocol.client import Client
from topod.protocol.replies import Jobs, Moves
from topod.protocol.requests import MakeMoves, PlanMoves, WaitJob

EXAMPLES = """
topoctl rebalance
topoctl rebalance --gpus 4 --affinity nvlink
topoctl rebalance --apply --wait
topoctl topo -o json > host.json; topoctl rebalance --from host.json
"""
PLAN_SECONDS = 60.0
"""A search on a large host may take seconds."""
POLL_SECONDS = 4.0


GpusOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="So many together are enough (default: as many as can be).", show_default=False
    ),
]
AffinityOption = Annotated[
    Affinity | None,
    typer.Option(
        metavar="LEVEL",
        help="How close they must be (default: nvlink where the host has it, else pcie, else numa).",
        show_default=False,
    ),
]
SourceOption = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="FILE", help="Plan on a host document; asks no daemon.", show_default=False
    ),
]
MostOption = Annotated[
    int | None,
    typer.Option("--max-moves", metavar="N", help="Move at most so many jobs.", show_default=False),
]


def rebalance(
    ctx: typer.Context,
    *,
    gpus: GpusOption = None,
    affinity: AffinityOption = None,
    cpus: Annotated[
        str, typer.Option(metavar="N|auto", help="With --gpus: CPUs that must be free beside them.")
    ] = "0",
    below: Annotated[str, typer.Option(metavar="PRIO", help="Only jobs of a lower priority move.")] = "high",
    most: MostOption = None,
    apply: Annotated[bool, typer.Option("--apply", help="Move the jobs, not only say so.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="With --apply: until they run again.")] = False,
    source: SourceOption = None,
    output: TextOrJsonOption = TextOrJson.TABLE,
) -> int:
    """Show which jobs would move to bring free GPUs together.

    With --apply they move: each is stopped as for a preemption (checkpoint hook, SIGTERM, grace) and started
    again at its new place. Exit status: 0 nothing to move, or moved; 10 jobs would be moved; 11 so many GPUs
    cannot be brought together.
    """
    if source is not None and (apply or wait):
        raise UsageError("--from is a plan only: it takes no --apply and no --wait")
    if wait and not apply:
        raise UsageError("--wait goes with --apply")
    request = PlanMoves(affinity=affinity, gpus=gpus, cpus=_cpus(cpus), below=_below(below), most=most)
    if source is not None:
        return _plan(ctx, _offline(request, source), output)
    with connect(ctx) as client:
        told = ask(client, request, Moves, PLAN_SECONDS)
        # Also where there is nothing to move: who may not ask for it is told so each time.
        if apply and told.plan["reached"]:
            return _apply(ctx, client, request, told, wait=wait, output=output)
    status = _plan(ctx, told, output)
    if status == exit_codes.WOULD_PREEMPT and output is TextOrJson.TABLE:
        note("topoctl rebalance --apply, with the same options, moves them")
    return status


def _apply(
    ctx: typer.Context, client: Client, request: PlanMoves, told: Moves, *, wait: bool, output: TextOrJson
) -> int:
    """Have exactly those jobs moved that were told of; return the status."""
    expected = {int(move["job"]): [int(gpu) for gpu in move["gpus"]] for move in told.plan["moves"]}
    made = ask(client, MakeMoves(plan=request, expected=expected), Moves, PLAN_SECONDS)
    if output is TextOrJson.JSON:
        show_json(made)
    else:
        show(moves_text(made, style(ctx)))
    return _await(client, expected) if wait else exit_codes.OK


def _plan(ctx: typer.Context, told: Moves, output: TextOrJson) -> int:
    """Print what would be moved and return the status for it."""
    if output is TextOrJson.JSON:
        show_json(told)
    else:
        show(moves_text(told, style(ctx)))
    if not told.plan["reached"]:
        return exit_codes.WOULD_WAIT
    return exit_codes.WOULD_PREEMPT if told.plan["moves"] else exit_codes.OK


def _await(client: Client, expected: dict[int, list[int]]) -> int:
    """Wait until the jobs run again; the status tells whether each does so at its new place."""
    status = exit_codes.OK
    for ident, gpus in expected.items():
        view = None
        while view is None or (view.state != "running" and view.state not in ENDED):
            request = WaitJob(job=ident, states=["running"], timeout=POLL_SECONDS)
            view = one_job(ask_patiently(client, request, Jobs, timeout=POLL_SECONDS + 4))
        there = view.state == "running" and view.gpu_indices == gpus
        where = f"runs on {gpus_text(view.gpu_indices)}" if view.state == "running" else view.state
        note(f"{label(view)} {where}" + ("" if there else ", not where it was to go"))
        status = status if there else exit_codes.CONFLICT
    return status


def _cpus(word: str) -> int | Literal["auto"]:
    try:
        number = jobfields.cpus(word)
    except ValueError as error:
        raise UsageError(f"--cpus: {error}") from None
    return number if isinstance(number, int) else "auto"


def _below(word: str) -> int:
    try:
        return jobfields.priority(word)
    except ValueError as error:
        raise UsageError(f"--below: {error}") from None


def _offline(request: PlanMoves, source: Path) -> Moves:
    # The planner brings numpy: only here, so that asking topod stays quick.
    from topod.discovery.load import read_host
    from topod.flextopo.tables import TopologyTables
    from topod.lifecycle.moves_text import rebalance_data
    from topod.model.occupancy import Occupancy
    from topod.rebalance.goals import make_goal, what_it_has
    from topod.rebalance.search import rebalance as search

    document = read_host(source)
    tables, taken = TopologyTables(document.topology), document.occupancy or Occupancy()
    goal = make_goal(
        tables,
        affinity=request.affinity,
        gpus=request.gpus,
        cpus=request.cpus,
        below=request.below,
        most=request.most,
    )
    asks = {holder.job: what_it_has(tables, holder) for holder in taken.holders}
    found = search(tables, taken, asks, goal)
    fewer = None
    if len(found.moves) > 1:
        fewer = search(tables, taken, asks, replace(goal, most=len(found.moves) - 1))
    return Moves(affinity=goal.affinity.value, plan=rebalance_data(found, fewer), generation=0)

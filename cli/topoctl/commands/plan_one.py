"""`topoctl plan` for one job: asks topod, or plans offline on a host from the library or a file."""

from typing import Any

import typer

from topoctl import exit_codes
from topoctl.jobflags import job_spec
from topoctl.render.plan import plan_text, victims_of
from topoctl.session import TextOrJson, ask, connect, show, show_json, style
from topod.model.job import JobSpec
from topod.protocol.replies import Planned
from topod.protocol.requests import DryRun


def plan_one(
    ctx: typer.Context,
    job: dict[str, Any],
    host: str | None,
    where: dict[str, Any],
    output: TextOrJson,
) -> int:
    """Print what would happen to the job now; return 0, or the status for stopping, waiting or never."""
    spec = job_spec(job, runs=False)
    if host is not None:
        planned = _offline(spec, host)
    else:
        with connect(ctx) as client:
            planned = ask(client, DryRun(spec=spec, **where), Planned)
    if output is TextOrJson.JSON:
        show_json(planned)
    else:
        show(plan_text(planned, spec.request, style(ctx)))
    if not planned.feasible:
        return exit_codes.ERROR if planned.never else exit_codes.WOULD_WAIT
    return exit_codes.WOULD_PREEMPT if victims_of(planned.plan) else exit_codes.OK


def _offline(spec: JobSpec, host: str) -> Planned:
    # The planner brings numpy: only here, so that asking topod stays quick.
    from topod.discovery.library import load_library_host
    from topod.flextopo.tables import TopologyTables
    from topod.lifecycle.explaining import plan_data
    from topod.lifecycle.moves_text import moves_instead
    from topod.model.occupancy import Occupancy
    from topod.model.plan import Refusal
    from topod.preemption.search import plan
    from topod.rebalance.goals import what_it_has

    document = load_library_host(host)
    occupancy = document.occupancy or Occupancy()
    tables = TopologyTables(document.topology)
    found = plan(tables, occupancy, spec.request)
    if isinstance(found, Refusal):
        empty = plan(tables, Occupancy(), spec.request)
        never = isinstance(empty, Refusal)
        found = empty if isinstance(empty, Refusal) else found
        return Planned(feasible=False, reason=found.reason, details=list(found.details), never=never)
    data = plan_data(tables, occupancy, spec.request, found)
    has = {holder.job: what_it_has(tables, holder) for holder in occupancy.holders}
    data["moves_instead"] = moves_instead(tables, occupancy, has, spec.request, found)
    return Planned(feasible=True, plan=data)

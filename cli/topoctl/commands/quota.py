"""`topoctl quota`: quotas and disruption budgets with their use, and the hold of a blocked job."""

import time

import typer

from topoctl.render.quota import fairness_text
from topoctl.session import Output, OutputOption, ask, connect, note, show, show_json, style
from topod.errors import UsageError
from topod.protocol.replies import Fairness
from topod.protocol.requests import GetFairness

EXAMPLES = """
topoctl quota
topoctl quota -o json
"""


def quota(ctx: typer.Context, *, output: OutputOption = Output.TABLE) -> None:
    """Show quotas and disruption budgets with their use.

    And what is kept for a job that has been blocked for long. The rules stand in the host's configuration.
    """
    if output is Output.NAME:
        raise UsageError("-o: quotas have no names; use table, wide or json")
    with connect(ctx) as client:
        now = ask(client, GetFairness(), Fairness)
    if output is Output.JSON:
        show_json(now)
        return
    show(fairness_text(now, time.time(), style(ctx), whole=output is Output.WIDE))
    if not now.quotas and not now.budgets and now.hold is None:
        note("no quota and no disruption budget binds a job here")

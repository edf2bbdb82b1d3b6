"""What only a host can do, and what only a fleet's coordinator can: asked of the other, it says so."""

from typing import Final

from topod.errors import TopodError
from topod.protocol import requests as rq

ASK_COORDINATOR: Final = "ask the fleet's coordinator: --coordinator, TOPOD_COORDINATOR or client.toml"


class NotHereError(TopodError):
    """Who is asked cannot do that; another one can."""

    code = "not-here"


def refuse_fleet_wishes(request: rq.AnyRequest) -> None:
    """Raise `NotHereError` for what names hosts, or a member on one of several, where there is one only."""
    if isinstance(request, rq.ReadLog | rq.Exec) and request.rank is not None:
        raise NotHereError("this is one host, not a fleet: --rank chooses a member", hint=ASK_COORDINATOR)
    if not isinstance(request, rq.Submit | rq.DryRun):
        return
    given = {"hosts": request.hosts != 1, "select": request.select, "gpu-model": request.gpu_model}
    for name, value in given.items():
        if value:
            raise NotHereError(f"this is one host, not a fleet: --{name} chooses hosts", hint=ASK_COORDINATOR)


def a_host_of_the_fleet(command: str, rest: str) -> NotHereError:
    """Return the error for what only one of a fleet's hosts can do, with the command that asks it."""
    return NotHereError(
        f"this is a fleet's coordinator: {command} is asked of one host: topoctl --host NAME {command}",
        hint=rest,
    )


def one_host_only() -> NotHereError:
    """Return the error for a request about the hosts of a fleet."""
    return NotHereError("this is one host, not a fleet", hint=ASK_COORDINATOR)

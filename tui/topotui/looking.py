"""A client that only looks: whatever a screen has keys for, nothing that changes anything is asked."""

from typing import Final

from topod.errors import NotAllowedError
from topod.protocol import requests as rq
from topod.protocol.client import Client
from topod.protocol.replies import AnyReply

LOOKS: Final[frozenset[type[rq.Request]]] = frozenset(
    {
        rq.Hello,
        rq.DryRun,
        rq.ListJobs,
        rq.GetJob,
        rq.GetArray,
        rq.WaitJob,
        rq.GetHost,
        rq.GetHosts,
        rq.GetCounts,
        rq.GetFairness,
        rq.PlanMoves,
        rq.ReadLog,
        rq.ReadEvents,
        rq.Follow,
    }
)
"""What changes nothing; everything else is refused."""


class LookingClient(Client):
    """Refuses to ask for changes."""

    def ask(self, request: rq.AnyRequest, timeout: float = 10.0) -> AnyReply:
        """Ask as `Client.ask` does. Raises `NotAllowedError` for what would change something."""
        asked = request.request if isinstance(request, rq.AtHost) else request
        if type(asked) not in LOOKS:
            raise NotAllowedError("this screen is read-only: nothing is changed from here")
        return super().ask(request, timeout)

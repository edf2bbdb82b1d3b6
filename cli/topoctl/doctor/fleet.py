"""The check of `topoctl doctor` for who asks a coordinator."""

from collections.abc import Iterator

from topoctl.doctor.check import PROBE_SECONDS, Check
from topoctl.doctor.clock import now, own_clock
from topoctl.doctor.troubles import judged
from topod.errors import TopodError
from topod.protocol.client import Client
from topod.protocol.remote import Remote
from topod.protocol.replies import Welcome
from topod.protocol.requests import Hello


def check_coordinator(remote: Remote) -> Iterator[Check]:
    """Ask the coordinator who we are to it, and what the time is."""
    with Client(remote) as client:
        try:
            client.ask(Hello(), timeout=PROBE_SECONDS)
            asked_at = now()  # the connection stands now: nothing but the way there and back is between
            welcome = client.ask(Hello(), timeout=PROBE_SECONDS)
            answered_at = now()
        except TopodError as error:
            yield Check(name="coordinator", verdict="bad", text=error.message, mend=error.hint or "")
            return
        where = client.where
    if not isinstance(welcome, Welcome):
        yield Check(name="coordinator", verdict="bad", text=f"{where} is no coordinator")
        return
    roles = ", ".join(welcome.roles) or "no role"
    text = f"the coordinator {welcome.version} answers at {where}; you are {welcome.user} ({roles})"
    verdict, mend = judged(welcome)
    yield Check(name="coordinator", verdict=verdict, text="; ".join((text, *welcome.troubles)), mend=mend)
    yield from own_clock(welcome, asked_at, answered_at)

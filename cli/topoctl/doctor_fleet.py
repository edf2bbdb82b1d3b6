"""The check of `topoctl doctor` for who asks a coordinator."""

from topoctl.doctor_checks import PROBE_SECONDS, Check
from topoctl.doctor_troubles import judged
from topod.errors import TopodError
from topod.protocol.client import Client
from topod.protocol.remote import Remote
from topod.protocol.replies import Welcome
from topod.protocol.requests import Hello


def check_coordinator(remote: Remote) -> Check:
    """Ask the coordinator who we are to it."""
    with Client(remote) as client:
        try:
            welcome = client.ask(Hello(), timeout=PROBE_SECONDS)
        except TopodError as error:
            return Check(name="coordinator", verdict="bad", text=error.message, mend=error.hint or "")
        where = client.where
    if not isinstance(welcome, Welcome):
        return Check(name="coordinator", verdict="bad", text=f"{where} is no coordinator")
    roles = ", ".join(welcome.roles) or "no role"
    text = f"the coordinator {welcome.version} answers at {where}; you are {welcome.user} ({roles})"
    verdict, mend = judged(welcome)
    return Check(name="coordinator", verdict=verdict, text="; ".join((text, *welcome.troubles)), mend=mend)

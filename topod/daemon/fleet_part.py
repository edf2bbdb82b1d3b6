"""Puts the host's side of a fleet together: the link to a configured coordinator, the watch of its lease."""

from pathlib import Path

from topod.adapters.curve_dealer import CurveDealer
from topod.adapters.own_address import address_towards
from topod.daemon.assembly import Daemon, Ports
from topod.daemon.config import Settings
from topod.daemon.fleet_link import FleetLink, HostSide, Memory
from topod.daemon.fleet_orders import Judge
from topod.daemon.lease import Lease, LeaseWatch, boot_id
from topod.lifecycle.states import ENDED, HostState
from topod.model.rules import Rules
from topod.protocol.remote import Remote
from topod.shell.vetting import Vet


def lease_file(socket: Path) -> Path:
    """Return where the end of the lease is kept: beside the socket, in a folder that goes with the boot."""
    return socket.with_name(f"{socket.name}.lease")


class FleetPart:
    """All that a host does for a fleet. Used from the event loop only."""

    def __init__(
        self,
        settings: Settings,
        remote: Remote | None,
        daemon: Daemon,
        ports: Ports,
        *,
        memory: Memory,
        vet: Vet,
    ) -> None:
        """Connect nowhere yet. A host alone only stops what is left of a fleet, when its lease ends."""
        section = settings.file.fleet
        lease = Lease(lease_file(settings.socket), boot_id())
        self._watch: LeaseWatch | None = None
        if remote is not None or has_assignments(daemon.mailbox.state):
            self._watch = LeaseWatch(lease, daemon.mailbox.post)
        self._link: FleetLink | None = None
        if remote is None:
            return

        def rules() -> Rules:
            return daemon.mailbox.rules

        side = HostSide(
            mailbox=daemon.mailbox,
            tables=ports.tables,
            clock=ports.clock,
            health=daemon.health,
            memory=memory,
            answer=daemon.service.answer,
            judge=Judge(tables=ports.tables, runtime=ports.runtime.name, rules=rules, vet=vet),
            rules=rules,
            name=section.name,
            labels=section.labels,
            address=lambda: section.address or address_towards(one.endpoint for one in remote.coordinators),
        )
        self._link = FleetLink(side, CurveDealer(remote.coordinators, remote.keys), lease)

    async def begin(self) -> None:
        """Before anything else: what may run elsewhere by now is not even begun, whatever recovery finds."""
        if self._watch is not None:
            await self._watch.begin()

    def start(self) -> None:
        """Talk to the coordinator, and watch the lease."""
        if self._watch is not None:
            self._watch.start()
        if self._link is not None:
            self._link.start()

    async def stop(self) -> None:
        """Say no more; the jobs go on for as long as the lease lasts."""
        if self._link is not None:
            await self._link.stop()
        if self._watch is not None:
            await self._watch.stop()


def has_assignments(state: HostState) -> bool:
    """Say whether a job of a fleet is here that has not ended."""
    return any(job.assignment is not None and job.state not in ENDED for job in state.jobs.values())

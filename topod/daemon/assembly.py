"""Puts the parts of a daemon together over the world that it is given.

`wiring` gives it the real one; the simulation gives it a pretended one and so runs exactly these parts.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from topod.daemon.executor import Executor, Surroundings
from topod.daemon.mailbox import Mailbox
from topod.daemon.patrol import Patrol
from topod.daemon.service import Identity, Service
from topod.daemon.storage import Store
from topod.daemon.witness import Witness
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.states import HostState
from topod.model.rules import NO_RULES, Rules
from topod.ports import Clock, ContainerRuntime, GpuProbe
from topod.protocol.views import EventView
from topod.shell.health import Health
from topod.shell.vetting import Vet, allow


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The world around a daemon."""

    tables: TopologyTables
    runtime: ContainerRuntime
    probe: GpuProbe
    store: Store
    clock: Clock


class Daemon:
    """All parts of one topod but its socket. Used from the event loop only."""

    def __init__(
        self,
        ports: Ports,
        state: HostState,
        identity: Identity,
        *,
        rules: Rules = NO_RULES,
        devices_free_seconds: float = 30.0,
        vet: Vet = allow,
    ) -> None:
        """Build the parts; `state` is what the store holds, `vet` judges what a job asks for."""
        self.health = Health()
        runtime, clock = ports.runtime, ports.clock
        self.mailbox = Mailbox(ports.tables, state, ports.store, clock=clock, health=self.health, rules=rules)
        self.witness = Witness(state)
        around = Surroundings(
            post=self.mailbox.post, state=lambda: self.mailbox.state, health=self.health, vet=vet
        )
        self.executor = Executor(runtime, ports.probe, around, devices_free_seconds=devices_free_seconds)
        self.service = Service(
            self.mailbox,
            ports.store,
            runtime,
            ports.tables,
            clock=clock,
            health=self.health,
            identity=identity,
        )
        self.patrol = Patrol(runtime, self.mailbox, clock=clock, health=self.health)

    def start(self, publish: Callable[[EventView], None]) -> None:
        """Begin to work; the host's story goes to `publish`."""
        self.mailbox.start(carry_out=self.executor.carry_out, publish=publish, witness=self.witness.saw)
        self.patrol.start()

    async def stop(self) -> None:
        """Stop the parts, those that bring work first. What was decided is durable and goes on next time."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.mailbox.stop)
            stack.push_async_callback(self.executor.stop)
            stack.push_async_callback(self.patrol.stop)
            stack.push_async_callback(self.service.sessions.close)

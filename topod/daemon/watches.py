"""The watches of a daemon that runs for real: its GPUs, and CPUs in foreign use."""

import asyncio
import contextlib
from typing import Final

from topod.adapters.host_processes import sees_every_process
from topod.adapters.process_shim import boot_id
from topod.adapters.sqlite_store import SqliteStore
from topod.daemon.assembly import Daemon
from topod.daemon.config import Settings
from topod.daemon.cpu_watch import ForeignCpuWatch
from topod.daemon.gpu_watch import GpuWatch
from topod.daemon.machine import online_cpus
from topod.daemon.owners import Owners
from topod.daemon.site import Site
from topod.health.assessor import Assessor
from topod.ports import Clock, ContainerRuntime
from topod.shell.config_file import health_rules_of

BOOT: Final = "boot"
"""Under what name the store remembers the boot of the machine in which the GPUs were last looked at."""


CLOSE_SECONDS: Final = 1.0
"""How long the probe may take to close; what is not done by then ends with the daemon."""


class Watches:
    """Everything that looks at the host while the daemon runs."""

    def __init__(
        self,
        site: Site,
        daemon: Daemon,
        settings: Settings,
        *,
        runtime: ContainerRuntime,
        store: SqliteStore,
        clock: Clock,
    ) -> None:
        section, rules = settings.file.health, health_rules_of(settings.file)
        boot = boot_id()
        rebooted = store.facts().get(BOOT, boot) != boot
        sees_all = site.topology.emulated or sees_every_process()
        owners = Owners(runtime, site.probe.identify, sees_all=sees_all)
        self._probe = site.probe
        self._gpus = GpuWatch(
            site.probe,
            daemon.mailbox,
            owners,
            Assessor(site.topology, rules, rebooted=rebooted),
            clock=clock,
            health=daemon.health,
            every_seconds=float(section.interval),
            seen_first=lambda: store.note_facts({BOOT: boot}),
        )
        # An emulated host's CPUs are mostly not there; whoever wants those that are says so.
        wanted = section.foreign_cpus == "on" or (
            section.foreign_cpus == "auto" and not site.topology.emulated
        )
        self._cpus = None
        if wanted:
            self._cpus = ForeignCpuWatch(
                daemon.mailbox,
                Owners(runtime, site.probe.identify),
                rules,
                pinnable=site.topology.cpus & online_cpus(),
                every_seconds=float(section.foreign_cpu_interval),
            )

    def start(self) -> None:
        """Begin to look."""
        self._gpus.start()
        if self._cpus is not None:
            self._cpus.start()

    async def stop(self) -> None:
        """Look no more; a call that hangs in the driver is left behind."""
        await self._gpus.stop()
        if self._cpus is not None:
            await self._cpus.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.to_thread(self._probe.close)

"""Builds the daemon from its parts and runs it; the only place that knows all of them."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Final

from topod import __version__
from topod.adapters.ipc_files import check_path
from topod.adapters.peers import unknown_groups
from topod.adapters.process_runtime import ProcessRuntime
from topod.adapters.service_manager import ServiceManager
from topod.adapters.sqlite_store import SqliteStore
from topod.adapters.zmq_server import Server
from topod.daemon.assembly import Daemon, Ports
from topod.daemon.config import Settings
from topod.daemon.fleet_part import FleetPart
from topod.daemon.housekeeping import Housekeeper
from topod.daemon.machine import memory_nodes, online_cpus, usable_cpus
from topod.daemon.service import Identity
from topod.daemon.site import Site, find_site, to_remember
from topod.daemon.standing import standing_line
from topod.daemon.watches import Watches
from topod.errors import ConflictError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.refit import refit
from topod.lifecycle.states import HOLDING, HostState
from topod.ports import ContainerRuntime
from topod.protocol.client import events_socket
from topod.protocol.remote import Remote
from topod.shell.access import Access, groups_named
from topod.shell.config_file import ConfigFile, rules_of
from topod.shell.fleet_config import remote_of
from topod.shell.gate import Gate
from topod.shell.lock import StateLock
from topod.shell.logs import Key, tell_upgrade
from topod.shell.metrics.part import MetricsPart
from topod.shell.reloading import Reloader, supervised
from topod.shell.supervision import Supervision
from topod.shell.vetting import Vet, vetter

if TYPE_CHECKING:
    from topod.daemon.metrics import HostMetrics

LOGS: Final = "logs"
"""Folder of the jobs' output in the state folder."""
DESCRIBE_SECONDS: Final = 2.0
SLOW_CALL: Final = 8
"""Create, start and remove may take so many times as long as a call that only asks."""
CLOSE_SECONDS: Final = 1.0
"""How long the runtime may take to close; what is not done by then is left as after a crash."""

log = logging.getLogger(__name__)


class SystemClock:
    """The wall clock."""

    def now(self) -> float:
        """Return epoch seconds."""
        return time.time()


def choose_runtime(settings: Settings, store: SqliteStore, state: HostState, site: Site) -> ContainerRuntime:
    """Return the runtime that was asked for, or with `auto` the best there is.

    Raises `ConflictError` when jobs of the state folder still live in another runtime or on another host.
    """
    facts = store.facts()
    alive = any(job.state in HOLDING or job.leftovers for job in state.jobs.values())
    topology = site.topology
    known = facts.get("runtime")
    name, engine = settings.runtime, settings.engine
    if name == "auto":
        name = known if alive and known is not None else ""
        if not name:
            engine = engine or _find_engine()
            name = "docker" if engine is not None else "process"
    here = f"{topology.name} (emulated)" if topology.emulated else "this machine"
    if alive:
        for what, before, now in (("runtime", known, name), ("host", facts.get("host"), here)):
            if before is not None and before != now:
                raise ConflictError(
                    f"{settings.state_dir} has jobs that still run with {what} {before}, not {now}",
                    hint="start topod as before, or name another state folder with --state-dir",
                )
    store.note_facts({"runtime": name, "host": here})
    logs = settings.state_dir / LOGS
    if name == "process":
        if settings.file.security.jobs is not None:
            raise ConflictError(
                "a policy for jobs, [security.jobs], can only be kept with a container engine",
                hint="start the engine, or name it with --engine; else remove the section",
            )
        return ProcessRuntime(
            root=settings.state_dir / "process",
            state_id=store.instance,
            log_dir=logs,
            machine_cpus=usable_cpus(),
            emulated=topology.emulated,
            log_bytes=settings.file.logs.max_bytes,
        )
    return _docker(settings, engine, store.instance, emulated=topology.emulated)


def _find_engine() -> str | None:
    from topod.adapters.docker_engine import find_engine  # noqa: PLC0415 - 0.2 s that `process` need not pay

    return find_engine()


def _docker(settings: Settings, engine: str | None, instance: str, *, emulated: bool) -> ContainerRuntime:
    from topod.adapters.docker_runtime import DockerRuntime  # noqa: PLC0415 - as in _find_engine
    from topod.adapters.docker_spec import Hardening  # noqa: PLC0415 - as in _find_engine

    policy = settings.file.security.jobs
    return DockerRuntime(
        state_id=instance,
        log_dir=settings.state_dir / LOGS,
        machine_cpus=online_cpus(),
        machine_nodes=memory_nodes(),
        base_url=engine or _find_engine(),
        emulated=emulated,
        log_bytes=settings.file.logs.max_bytes,
        call_timeout=settings.engine_seconds,
        slow_timeout=settings.engine_seconds * SLOW_CALL,
        hardening=Hardening()
        if policy is None
        else Hardening(
            no_new_privileges=policy.no_new_privileges, drop_capabilities=policy.drop_capabilities
        ),
    )


async def run(settings: Settings) -> None:
    """Run topod until SIGTERM or SIGINT. Containers go on; everything decided is durable.

    Raises `TopodError` when it cannot start.
    """
    manager = ServiceManager.of(os.environ)
    check_path(settings.socket)
    stopped = asyncio.Event()
    # By default it would end a daemon that is not ready yet; the file is about to be read anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with StateLock(settings.state_dir), closing(SqliteStore(settings.state_dir / "state.db")) as store:
        tell_upgrade(store.upgrade)
        state = store.load()
        remote = remote_of(settings.file.fleet)
        site = await asyncio.to_thread(find_site, settings, store.facts())
        state = refit(state, site.topology)
        runtime = await asyncio.to_thread(choose_runtime, settings, store, state, site)
        store.note_facts(to_remember(site))
        serve = partial(_serve, settings, site, store, state, stopped=stopped, manager=manager)
        await serve(runtime=runtime, remote=remote)
    log.info("daemon.stopped")


async def _serve(
    settings: Settings,
    site: Site,
    store: SqliteStore,
    state: HostState,
    *,
    runtime: ContainerRuntime,
    remote: Remote | None,
    stopped: asyncio.Event,
    manager: ServiceManager,
) -> None:
    """Start every part, wait for `stopped`, and stop the parts, those that bring work first."""
    clock = SystemClock()
    tables = TopologyTables(site.topology)
    identity = Identity(
        state_dir=str(settings.state_dir),
        events_endpoint=f"ipc://{events_socket(settings.socket)}",
        notes=site.notes,
        started_at=clock.now(),
        groups=groups_named(settings.file.security),
        configured=settings.configured.told,
    )
    vet = vetter(settings.file.security.jobs, (settings.state_dir, settings.socket.parent))
    ports = Ports(tables=tables, runtime=runtime, probe=site.probe, store=store, clock=clock)
    daemon = Daemon(
        ports,
        state,
        identity,
        rules=rules_of(settings.file),
        vet=vet,
        devices_free_seconds=settings.devices_free_seconds,
    )
    daemon.health.runtime_text = await _described(runtime)
    access = Access(settings.file.security)
    metrics = MetricsPart(settings.metrics, lambda: _told(daemon, ports, in_fleet=remote is not None))
    server = _server(settings, access, daemon, vet, metrics)
    folder = settings.state_dir / LOGS
    housekeeper = Housekeeper(store, folder, settings.file, state=lambda: daemon.mailbox.state, clock=clock)
    fleet = FleetPart(settings, remote, daemon, ports, memory=store, vet=vet)
    watches = Watches(site, daemon, settings, runtime=runtime, store=store, clock=clock)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_in_time, asyncio.to_thread(runtime.close))
        for stop in (daemon.stop, watches.stop, fleet.stop, housekeeper.stop):
            stack.push_async_callback(stop)
        stack.callback(access.close)
        stack.callback(asyncio.create_task(_doubt_groups(identity.groups), name="groups").cancel)
        stack.push_async_callback(server.stop)
        server.bind()
        stack.callback(metrics.stop)
        daemon.health.metrics_url = metrics.start()
        await fleet.begin()
        daemon.start(publish=server.publish)
        server.start()
        watches.start()
        fleet.start()
        housekeeper.start()
        _say_started(settings, site, daemon)
        await stack.enter_async_context(_supervised(manager, settings, daemon, ports, housekeeper))
        await stopped.wait()
        log.info("daemon.stopping")


def _supervised(
    manager: ServiceManager, settings: Settings, daemon: Daemon, ports: Ports, housekeeper: Housekeeper
) -> AbstractAsyncContextManager[None]:
    """Return that during which the service manager is told how it stands, and can ask for a reload."""
    topology, mailbox, health = ports.tables.topology, daemon.mailbox, daemon.health

    def take(file: ConfigFile) -> None:
        mailbox.rules = rules_of(file)
        housekeeper.obey(file)

    return supervised(
        Supervision(
            manager,
            line=lambda: standing_line(topology, mailbox.state, recovered=mailbox.recovered),
            health=health,
            pulse=lambda: mailbox.pulse,
        ),
        Reloader(settings.configured, take=take, health=health),
    )


def _say_started(settings: Settings, site: Site, daemon: Daemon) -> None:
    extra = {
        Key.VERSION: __version__,
        Key.HOST: site.topology.name,
        Key.RUNTIME: daemon.health.runtime_text,
        Key.SOCKET: str(settings.socket),
        Key.STATE_DIR: str(settings.state_dir),
        Key.JOBS: len(daemon.mailbox.state.jobs),
        **({Key.METRICS: daemon.health.metrics_url} if daemon.health.metrics_url else {}),
    }
    log.info("daemon.started", extra=extra)


def _told(daemon: Daemon, ports: Ports, *, in_fleet: bool) -> "HostMetrics":
    from topod.daemon.metrics import HostMetrics  # noqa: PLC0415 - see MetricsPart

    return HostMetrics(
        ports.tables,
        daemon.mailbox,
        daemon.witness,
        clock=ports.clock,
        health=daemon.health,
        runtime=ports.runtime.name,
        in_fleet=in_fleet,
    )


def _server(settings: Settings, access: Access, daemon: Daemon, vet: Vet, metrics: MetricsPart) -> Server:
    """Return the sockets with the gate behind them."""
    rules = settings.file.security
    gate = Gate(access, answer=daemon.service.answer, owner=daemon.service.owner, vet=vet)
    return Server(
        settings.socket,
        metrics.counted(gate.answer),
        group=rules.socket_group,
        mode=int(rules.socket_mode, 8),
        may_watch=None if access.open_to_view else access.may_view,
        on_trouble=partial(daemon.health.tell, "socket"),
    )


async def _doubt_groups(named: Mapping[str, list[str]]) -> None:
    """Say in the log which groups of the configuration nobody can be in; the user database may be slow."""
    for text in await asyncio.to_thread(unknown_groups, named):
        log.warning("config.doubted", extra={Key.TEXT: text})


async def _described(runtime: ContainerRuntime) -> str:
    try:
        async with asyncio.timeout(DESCRIBE_SECONDS):
            return await asyncio.to_thread(runtime.describe)
    except TimeoutError:
        return f"{runtime.name}: no answer yet"


async def _in_time(work: Coroutine[None, None, None]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await work

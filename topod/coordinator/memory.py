"""Opens the memory that the configuration names: a file, or etcd, where several coordinators lead in turn."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from topod.adapters.credentials import handed
from topod.adapters.sqlite_fleet import SqliteFleet
from topod.coordinator.config import Settings
from topod.coordinator.election import Alone, Lead
from topod.coordinator.storage import FleetStore
from topod.errors import UsageError
from topod.shell.coordinator_config import StoreSection
from topod.shell.logs import tell_upgrade


@contextmanager
def open_memory(settings: Settings) -> Iterator[tuple[Lead, FleetStore]]:
    """Yield the lead of the fleet, to be taken, and the memory that its leader may write.

    Raises `StoreError` for a state that cannot be used, `NewerStateError` for a newer topod's, `UsageError`
    and `DataError` for what is configured.
    """
    said = settings.file.store
    if said.kind == "sqlite":
        with closing(SqliteFleet(settings.state_dir / "fleet.db")) as file:
            tell_upgrade(file.upgrade)
            yield Alone(), file
        return
    with _in_etcd(said, name_of(settings)) as both:
        yield both


@contextmanager
def _in_etcd(said: StoreSection, name: str) -> Iterator[tuple[Lead, FleetStore]]:
    try:
        # Not needed, and often not installed, where the memory is a file.
        from topod.adapters.etcd_client import EtcdClient, Tls  # noqa: PLC0415
        from topod.adapters.etcd_fleet import EtcdFleet  # noqa: PLC0415
        from topod.adapters.etcd_layout import Keys  # noqa: PLC0415
        from topod.adapters.etcd_lead import EtcdLead  # noqa: PLC0415
        from topod.adapters.etcd_reader import EtcdReader  # noqa: PLC0415
    except ImportError as error:
        text = f'[store] kind = "etcd" needs a Python package that is not installed: {error.name}'
        raise UsageError(text, hint="pip install 'topod[etcd]'") from None
    tls = None
    if said.endpoints[0].startswith("https://"):
        tls = Tls(ca_file=_file(said.ca_file), cert_file=_file(said.cert_file), key_file=_file(said.key_file))
    with closing(EtcdClient(said.endpoints, tls)) as client:
        reader = EtcdReader(client, Keys(prefix=said.prefix))
        reader.refuse_newer()
        lead = EtcdLead(
            client, said.prefix, name=name, seconds=float(said.lease_seconds), may_lead=reader.read_head
        )
        yield lead, EtcdFleet(client, lead, said.prefix)


def name_of(settings: Settings) -> str:
    """Return by what address others tell that this coordinator leads."""
    said = settings.file.coordinator.advertise
    if said:
        return said
    place, _, port = settings.listen.removeprefix("tcp://").rpartition(":")
    anywhere = place in ("0.0.0.0", "[::]", "*")  # noqa: S104 - looked for, not listened at
    return f"tcp://{socket.gethostname() if anywhere else place}:{port}"


def _file(name: str) -> Path | None:
    return handed(Path(name)) if name else None

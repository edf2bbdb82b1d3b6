"""What a fleet as it is can never do, in words."""

from collections.abc import Mapping

import pytest

from tests.fakes.world import spec
from topod.discovery.library import load_library_host
from topod.fleet.never import never
from topod.fleet.states import FleetRequest, HostRecord
from topod.flextopo.tables import TopologyTables

DGX = TopologyTables(load_library_host("dgx1").topology)
SMALL = TopologyTables(load_library_host("one-gpu").topology)
FLEET = {"a": DGX, "b": DGX, "c": SMALL}


def why(
    gpus: int, known: Mapping[str, TopologyTables] = FLEET, *, hosts: int = 1, model: str = ""
) -> str | None:
    asked = FleetRequest(spec=spec(gpus=gpus), hosts=hosts, gpu_model=model, select=("rack=9",))
    return never(asked, {name: HostRecord(name=name, known_since=0.0) for name in FLEET}, known)


def test_what_could_be_once_others_end_is_not_never() -> None:
    assert why(8, hosts=2) is None
    assert why(1, hosts=3) is None
    assert why(8, model="*v100*") is None
    assert never(FleetRequest(spec=spec(gpus=9), hosts=2), {}, {}) is None


@pytest.mark.parametrize(
    ("gpus", "hosts", "model", "text"),
    [
        (1, 9, "", "the fleet has 3 hosts, 9 are asked for"),
        (9, 1, "", "9 GPUs on one host asked for, no host of the fleet has more than 8"),
        (8, 3, "", "only 2 hosts of the fleet could ever do it, 3 are asked for"),
        (1, 1, "*mi300*", "no host of the fleet has GPUs whose model matches *mi300*; the fleet has "),
        (1, 3, "*v100*", "only 2 hosts of the fleet have GPUs whose model matches *v100*, 3 are asked for"),
    ],
)
def test_it_is_said_what_is_missing(gpus: int, hosts: int, model: str, text: str) -> None:
    assert (why(gpus, hosts=hosts, model=model) or "").startswith(text)


def test_of_hosts_that_were_not_seen_yet_everything_is_to_be_hoped_for() -> None:
    assert why(9, {"a": DGX}) is None
    assert why(1, {"a": DGX}, hosts=4) is not None

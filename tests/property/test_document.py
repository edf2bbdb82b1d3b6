import json

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.matrices import matrices
from tests.property.topologies import occupancies, topologies
from topod.discovery.document import alike, dump_host, load_host
from topod.discovery.from_matrix import topology_from_matrix
from topod.discovery.parse_smi_topo import Matrix
from topod.errors import DataError
from topod.fleet.kinds import structure_key
from topod.model.topology import Topology


@given(topologies(), st.data())
@settings(max_examples=80, deadline=None)
def test_a_document_gives_back_exactly_the_host_it_was_made_of(
    topology: Topology, data: st.DataObject
) -> None:
    occupancy = data.draw(st.none() | occupancies(len(topology.gpus)))
    found = load_host(dump_host(topology, occupancy), "x")
    assert found.topology == topology
    assert found.topology.facts == topology.facts
    assert found.occupancy == occupancy


@given(matrices())
@settings(max_examples=100, deadline=None)
def test_every_matrix_makes_a_valid_host_that_survives_export(drawn: tuple[Matrix, int]) -> None:
    topology = topology_from_matrix(drawn[0], "h")
    assert load_host(dump_host(topology), "x").topology == topology
    assert [gpu.numa_node for gpu in topology.gpus] == [row.numa_node for row in drawn[0].gpus]


@given(topologies(), st.data())
@settings(max_examples=80, deadline=None)
def test_a_damaged_document_is_refused_in_one_line_or_still_valid(
    topology: Topology, data: st.DataObject
) -> None:
    good = dump_host(topology)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + data.draw(st.binary(max_size=3)) + good[at + data.draw(st.integers(0, 8)) :]
    try:
        found = load_host(bad, "host.json")
    except DataError as error:
        message = error.message
    else:
        message = f"host.json: {len(found.topology.gpus)}"
    assert message.startswith("host.json: ")
    assert "\n" not in message


@given(topologies(), topologies(), st.data())
@settings(max_examples=40, deadline=None)
def test_documents_with_one_key_are_both_refused_or_of_one_structure(
    topology: Topology, other: Topology, data: st.DataObject
) -> None:
    plain = json.loads(dump_host(topology))
    twin = json.loads(dump_host(data.draw(st.sampled_from([topology, topology, other]))))
    twin["name"] = data.draw(st.sampled_from([plain["name"], "another", ""]))
    for number, gpu in enumerate(twin["gpus"]):
        gpu["uuid"] = data.draw(st.sampled_from([f"GPU-{number}", f"GPU-{number}", "GPU-0", None]))
        gpu["memory_bytes"] = data.draw(st.sampled_from([None, 80 << 30]))
        gpu["numa_node"] = data.draw(st.sampled_from([gpu["numa_node"], gpu["numa_node"], 7]))
    first, second = (json.dumps(one).encode() for one in (plain, twin))
    if alike(first, "x") == alike(second, "x"):
        assert structure_key(load_host(first, "x").topology) == structure_key(load_host(second, "x").topology)
    renamed = json.dumps({**twin, "name": "yet another", "facts": []}).encode()
    assert alike(renamed, "x") == alike(second, "x")
    assert _taken(renamed) == _taken(second)


def _taken(document: bytes) -> bool:
    try:
        load_host(document, "x")
    except DataError:
        return False
    return True

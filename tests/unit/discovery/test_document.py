"""The fixed keys of the host document, and what a wrong one is told."""

import json
from typing import Any

import pytest

from topod.discovery.document import dump_host, gpu_state, load_host
from topod.discovery.from_matrix import topology_from_matrix
from topod.discovery.parse_smi_topo import parse_matrix
from topod.errors import DataError
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Block, Holder, Occupancy

TEXT = """\
\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity
GPU0\t X \tSOC\tPIX\t0-3,8\t0
GPU1\tSOC\t X \tSYS\t4-7\t\tN/A

NIC Legend:

  NIC0: mlx5_3
"""
HOST = topology_from_matrix(parse_matrix(TEXT), "box")


def _small(**changes: Any) -> bytes:
    document: dict[str, Any] = {
        "apiVersion": "topod/v1",
        "kind": "Host",
        "name": "h",
        "gpus": [{"index": 0, "cpus": "0-3"}, {"index": 1}],
        "links": [["X", "NV4"], ["NV4", "X"]],
    }
    return json.dumps(document | changes).encode()


def test_the_promised_keys_are_there() -> None:
    document = json.loads(dump_host(HOST))
    assert document["apiVersion"] == "topod/v1"
    assert [(gpu["index"], gpu["numa_node"], gpu["cpus"]) for gpu in document["gpus"]] == [
        (0, 0, "0-3,8"),
        (1, None, "4-7"),
    ]
    assert document["links"] == [["X", "SYS"], ["SYS", "X"]]
    assert document["nics"] == ["NIC0"]
    assert document["nic_devices"][0]["device"] == "mlx5_3"
    assert document["nic_links"] == [["PIX"], ["SYS"]]


def test_a_document_written_by_hand_needs_little() -> None:
    host = load_host(_small(), "h.json")
    assert host.occupancy is None
    assert [gpu.cpus_text for gpu in host.topology.gpus] == ["0-3", None]
    assert host.topology.gpus[0].cpus == CpuSet.parse("0-3")
    assert len({gpu.uuid for gpu in host.topology.gpus}) == 2


def test_the_state_of_each_gpu_is_shown() -> None:
    occupancy = Occupancy(
        holders=(Holder(job="7", priority=100, gpus=0b01),),
        blocks=(Block(reason="unhealthy: Xid 79", gpus=0b10),),
    )
    document = json.loads(dump_host(HOST, occupancy))
    assert [gpu["state"] for gpu in document["gpus"]] == ["held by job 7", "unhealthy: Xid 79"]
    assert document["occupancy"]["jobs"][0]["gpus"] == [0]
    assert gpu_state(Occupancy(), 0) == "free"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "h.json: not JSON: "),
        (b"{", "h.json: not JSON: "),
        (b"\xff\xfe{", "h.json: not JSON: "),
        (b'{"gpus": ' + b"[" * 100_000, "h.json: not "),
        (_small(apiVersion="topod/v9"), "at `$.apiVersion`"),
        (_small(gpus=[{"index": "0"}]), "Expected `int`, got `str` - at `$.gpus[0].index`"),
        (
            _small(gpus=[{"index": 0, "cpus": "3-1"}, {"index": 1}]),
            "not a CPU list: '3-1' - at `$.gpus[0].cpus`",
        ),
        (_small(links=[["X", "NV0"], ["NV4", "X"]]), "not a link class: 'NV0' - at `$.links[0][1]`"),
        (_small(links=[["X", "NV2"], ["NV4", "X"]]), "link GPU0-GPU1 differs from GPU1-GPU0 - at `$`"),
        (_small(links=[["X"]]), "the link matrix is not 2 by 2 - at `$`"),
        (_small(nics=["NIC0"], nic_devices=[]), "at `$.nic_devices`"),
        (
            _small(gpus=[{"index": 0, "numa_node": 7}, {"index": 1}], numa_nodes=[{"id": 0, "cpus": "0"}]),
            "no NUMA node 7 is listed - at `$.gpus[0].numa_node`",
        ),
        (_small(numa_nodes=[{"id": 0, "cpus": "0"}, {"id": 1, "cpus": "0"}]), "NUMA node 1 shares CPUs 0"),
        (
            _small(occupancy={"jobs": [{"id": "a", "priority": 1, "gpus": [2]}]}),
            "at `$.occupancy.jobs[0].gpus`",
        ),
        (
            _small(
                occupancy={
                    "jobs": [{"id": "a", "priority": 1, "gpus": [0]}, {"id": "b", "priority": 1, "gpus": [0]}]
                }
            ),
            "a GPU is held by two jobs - at `$.occupancy.jobs[1].gpus`",
        ),
        (
            _small(
                occupancy={
                    "jobs": [
                        {"id": "a", "priority": 1, "cpus": "1"},
                        {"id": "b", "priority": 1, "cpus": "0-1"},
                    ]
                }
            ),
            "a CPU is held by two jobs - at `$.occupancy.jobs[1].cpus`",
        ),
        (
            _small(occupancy={"jobs": [{"id": "a", "priority": 1}, {"id": "a", "priority": 1}]}),
            "two jobs have the id 'a' - at `$.occupancy.jobs[1].id`",
        ),
    ],
)
def test_a_wrong_document_is_told_what_and_where(data: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        load_host(data, "h.json")
    assert caught.value.message.startswith("h.json: ")
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_cpus_claimed_by_two_numa_nodes_are_given_to_neither() -> None:
    text = "\tGPU0\tGPU1\tGPU2\tCPU Affinity\tNUMA Affinity\n"
    rows = [("0-3", 0), ("0-3", 1), ("8-11", 2)]
    for index, (cpus, node) in enumerate(rows):
        cells = ["X" if other == index else "SYS" for other in range(3)]
        text += f"GPU{index}\t" + "\t".join(cells) + f"\t{cpus}\t{node}\n"
    host = topology_from_matrix(parse_matrix(text), "h")
    assert [(node.id, str(node.cpus)) for node in host.numa_nodes] == [(0, ""), (1, ""), (2, "8-11")]
    assert {fact.subject for fact in host.facts if fact.disagrees} == {"numa0.cpus", "numa1.cpus"}


def test_a_cpu_list_that_nvidia_smi_may_have_cut_is_noted() -> None:
    host = topology_from_matrix(parse_matrix("\tGPU0\tCPU Affinity\nGPU0\tX\t0,2,4,6,8,10\n"), "h")
    assert [fact.source for fact in host.facts if fact.subject == "gpu0.cpus"] == [
        "nvidia-smi topo -m, which may have cut the list"
    ]

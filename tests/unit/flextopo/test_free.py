import pytest

from topod.discovery.library import load_library_host
from topod.flextopo.free import Group, free_groups
from topod.flextopo.places import places
from topod.flextopo.tables import TopologyTables
from topod.model.request import Affinity


@pytest.mark.parametrize(
    ("host", "free", "groups"),
    [
        ("hgx-h100", 0b11111111, [(Affinity.NVLINK, 8, 1)]),
        ("hgx-h100", 0b01110000, [(Affinity.NVLINK, 3, 1)]),
        ("a100-pcie-x4", 0b1111, [(Affinity.NVLINK, 2, 2)]),
        ("a100-pcie-x4", 0b1110, [(Affinity.NVLINK, 2, 1), (Affinity.ANY, 1, 1)]),
        ("l40s-x8", 0b11110111, [(Affinity.PCIE, 2, 3), (Affinity.ANY, 1, 1)]),
        ("l40s-x8", 0b00000101, [(Affinity.NUMA, 2, 1)]),
        ("rtx4090x8", 0b11111111, [(Affinity.SOCKET, 4, 2)]),
        ("rtx4090x8", 0b00010001, [(Affinity.ANY, 1, 2)]),
        ("dgx1", 0, []),
    ],
)
def test_free_gpus_come_to_the_closest_and_largest_groups_first(
    host: str, free: int, groups: list[tuple[Affinity, int, int]]
) -> None:
    tables = TopologyTables(load_library_host(host).topology)
    assert list(free_groups(tables, free)) == [Group(*one) for one in groups]


@pytest.mark.parametrize(
    ("host", "islands", "nodes", "switches"),
    [
        ("dgx1", "00004444", "00001111", "00004444"),
        ("dgx-a100", "00000000", "33117755", "00000000"),
        ("l40s-x8", "01234567", "00001111", "00224466"),
    ],
)
def test_gpus_that_belong_together_share_a_number(host: str, islands: str, nodes: str, switches: str) -> None:
    found = places(load_library_host(host).topology)
    assert ["".join(map(str, numbers)) for numbers in zip(*found, strict=True)] == [islands, nodes, switches]

from itertools import pairwise

from tests.oracles.random_hosts import CUBE_MESH, make_host
from topod.flextopo.groups import partition_codes
from topod.flextopo.tables import TopologyTables


def test_a_profile_counts_the_largest_groups_first() -> None:
    bridges = TopologyTables(make_host(nodes=[0, 0, 1, 1], nvlinks={(0, 1): 4, (2, 3): 4}))
    assert bridges.left_profiles(0b1111) == ((2, 2), (2, 2), (2, 2))
    assert bridges.left_profiles(0b0111) == ((2, 1), (2, 1), (2, 1))
    assert bridges.left_profiles(0b0101) == ((1, 1), (1, 1), (1, 1))
    assert bridges.left_profiles(0) == ((), (), ())


def test_a_whole_pair_is_better_left_over_than_two_broken_ones() -> None:
    bridges = TopologyTables(make_host(nodes=[0, 0, 0, 0], nvlinks={(0, 1): 4, (2, 3): 4}))
    assert bridges.left[0b0011] > bridges.left[0b0101]


def test_ranks_compare_as_the_profiles_do() -> None:
    tables = TopologyTables(make_host(nodes=[0, 0, 0, 0, 1, 1, 1, 1], nvlinks=CUBE_MESH))

    def padded(mask: int) -> tuple[int, ...]:
        return tuple(n for sizes in tables.left_profiles(mask) for n in sizes + (0,) * (8 - len(sizes)))

    by_rank = sorted(range(256), key=lambda mask: int(tables.left[mask]))
    profiles = [padded(mask) for mask in by_rank]
    assert profiles == sorted(profiles)
    for a, b in pairwise(by_rank):
        assert (tables.left[a] == tables.left[b]) == (padded(a) == padded(b))


def test_every_sum_has_its_own_code() -> None:
    # 1 + 1 + 2 + 3 + 5 + 7 ways to write 0, 1, 2, 3, 4, 5 as sums
    assert len(set(partition_codes(5).tolist())) == 19

"""What is made of captured sysfs text, including what no real dump shows."""

import pytest

from topod.discovery.parse_cpuset_cgroup import cpuset_files
from topod.discovery.parse_pci import parse_cpu_map
from topod.discovery.parse_sysfs import interpret_sysfs
from topod.discovery.rawhost import RawSysfs
from topod.errors import ProbeError
from topod.model.cpuset import MAX_CPU, CpuSet
from topod.model.topology import Core, NumaNode, Socket

CPU = "sys/devices/system/cpu"
NODE = "sys/devices/system/node"
PCI = "sys/bus/pci/devices"


def raw(
    files: dict[str, str] | None = None,
    *,
    cpus: int = 4,
    folders: dict[str, tuple[str, ...]] | None = None,
    links: dict[str, str] | None = None,
) -> RawSysfs:
    base = {CPU: (*(f"cpu{n}" for n in range(cpus)), "cpufreq", "cpuidle", "online")}
    return RawSysfs(files=files or {}, folders=base | (folders or {}), links=links or {})


def topology_files(sets: dict[str, str], file: str) -> dict[str, str]:
    """Give each CPU of each list the file with that list."""
    return {f"{CPU}/cpu{cpu}/{file}": text for text in sets.values() for cpu in CpuSet.parse(text)}


def lists(*texts: str) -> dict[str, str]:
    return {text: text for text in texts}


def cpus(text: str) -> CpuSet:
    return CpuSet.parse(text)


def test_without_topology_files_there_is_one_socket_and_each_cpu_is_a_core() -> None:
    facts = interpret_sysfs(raw({"proc/meminfo": "MemTotal:       2048 kB\nMemFree: 1 kB"}))
    assert facts.sockets == (Socket(id=0, cpus=cpus("0-3")),)
    assert facts.cores == tuple(Core(id=n, cpus=cpus(str(n))) for n in range(4))
    assert facts.numa_nodes == (NumaNode(id=0, cpus=cpus("0-3"), memory_bytes=2048 * 1024),)
    assert facts.core_groups == ()
    assert facts.smt == 1
    assert facts.allowed is None
    assert facts.notes == ("the kernel shows no NUMA nodes: the machine counts as one node",)


def test_a_tree_with_only_the_list_of_online_cpus_is_read() -> None:
    facts = interpret_sysfs(RawSysfs(files={f"{CPU}/online": "0-1"}, folders={}, links={}))
    assert facts.online == cpus("0-1")


def test_a_tree_without_cpus_is_an_error_of_one_line() -> None:
    with pytest.raises(ProbeError) as caught:
        interpret_sysfs(RawSysfs(files={}, folders={}, links={}))
    assert str(caught.value) == f"no online CPU in {CPU}"


def test_cpus_of_the_bus_folder_are_read_where_the_other_is_missing() -> None:
    facts = interpret_sysfs(
        RawSysfs(
            files={f"sys/bus/cpu/devices/cpu{n}/topology/thread_siblings": "3" for n in (0, 1)},
            folders={"sys/bus/cpu/devices": ("cpu0", "cpu1")},
            links={},
        )
    )
    assert facts.cores == (Core(id=0, cpus=cpus("0-1")),)


def test_a_cpu_switched_off_by_its_own_file_is_offline_and_in_no_set() -> None:
    facts = interpret_sysfs(
        raw(
            {f"{CPU}/cpu2/online": "0", f"{CPU}/cpu3/online": "1"}
            | topology_files(lists("0-3"), "topology/core_cpus_list")
        )
    )
    assert (facts.online, facts.offline) == (cpus("0-1,3"), cpus("2"))
    assert facts.cores == (Core(id=0, cpus=cpus("0-1,3")),)


def test_cpus_that_are_possible_but_not_there_are_not_offline() -> None:
    facts = interpret_sysfs(raw({f"{CPU}/online": "0-2", f"{CPU}/offline": "3-15"}))
    assert facts.offline == cpus("3")


def test_core_ids_that_repeat_in_each_socket_do_not_join_cores() -> None:
    files = {f"{CPU}/cpu{n}/topology/core_id": str(n % 2) for n in range(4)}
    files |= {f"{CPU}/cpu{n}/topology/physical_package_id": str(n // 2) for n in range(4)}
    facts = interpret_sysfs(raw(files))
    assert [str(core.cpus) for core in facts.cores] == ["0", "1", "2", "3"]
    assert facts.sockets == (Socket(id=0, cpus=cpus("0-1")), Socket(id=1, cpus=cpus("2-3")))


@pytest.mark.parametrize("ids", [("0", "0"), ("-1", "-1")])
def test_sockets_that_share_an_id_are_numbered(ids: tuple[str, str]) -> None:
    files = topology_files(lists("0-1", "2-3"), "topology/core_siblings_list")
    files |= {f"{CPU}/cpu{n}/topology/physical_package_id": ids[n // 2] for n in range(4)}
    facts = interpret_sysfs(raw(files))
    assert facts.sockets == (Socket(id=0, cpus=cpus("0-1")), Socket(id=1, cpus=cpus("2-3")))
    assert any("package ids" in note for note in facts.notes)


def test_hybrid_processors_have_cores_of_different_width() -> None:
    facts = interpret_sysfs(raw(topology_files(lists("0-1", "2", "3"), "topology/thread_siblings_list")))
    assert [str(core.cpus) for core in facts.cores] == ["0-1", "2", "3"]
    assert facts.smt == 2


def test_sibling_lists_that_contradict_each_other_still_give_disjoint_cores() -> None:
    files = {
        f"{CPU}/cpu0/topology/core_cpus_list": "0-1",
        f"{CPU}/cpu1/topology/core_cpus_list": "1-2",
        f"{CPU}/cpu2/topology/core_cpus_list": "1-2",
    }
    facts = interpret_sysfs(raw(files))
    assert [str(core.cpus) for core in facts.cores] == ["0-1", "2", "3"]


def test_a_damaged_file_counts_as_missing_and_is_named() -> None:
    path = f"{CPU}/cpu0/topology/core_cpus_list"
    facts = interpret_sysfs(raw({path: "0-", f"{CPU}/online": "what"}))
    assert facts.online == cpus("0-3")
    assert [str(core.cpus) for core in facts.cores] == ["0", "1", "2", "3"]
    assert {f"{path} is damaged: not used", f"{CPU}/online is damaged: not used"} <= set(facts.notes)


def test_memory_only_nodes_and_sparse_node_numbers_keep_their_distances() -> None:
    files = {
        f"{NODE}/node0/cpulist": "0-1",
        f"{NODE}/node8/cpumap": "0000000c",
        f"{NODE}/node252/cpulist": "",
        f"{NODE}/node252/meminfo": "Node 252 MemTotal:  16 kB",
        f"{NODE}/node0/distance": "10 40 80",
        f"{NODE}/node8/distance": "40 10 80",
    }
    facts = interpret_sysfs(raw(files, folders={NODE: ("node252", "node0", "node8", "has_cpu")}))
    assert facts.numa_nodes == (
        NumaNode(id=0, cpus=cpus("0-1"), distances=((0, 10), (8, 40), (252, 80))),
        NumaNode(id=8, cpus=cpus("2-3"), distances=((0, 40), (8, 10), (252, 80))),
        NumaNode(id=252, cpus=cpus(""), memory_bytes=16 * 1024),
    )


def test_an_l3_cache_wider_than_a_numa_node_gives_one_core_group_per_node() -> None:
    files = topology_files(lists("0-3"), "cache/index0/shared_cpu_list")
    files |= {f"{CPU}/cpu{n}/cache/index0/level": "3" for n in range(4)}
    files |= {f"{NODE}/node0/cpulist": "0,2", f"{NODE}/node1/cpulist": "1,3"}
    facts = interpret_sysfs(raw(files, folders={NODE: ("node0", "node1")}))
    assert [(group.id, str(group.cpus)) for group in facts.core_groups] == [(0, "0,2"), (1, "1,3")]
    assert facts.l3_count == 1


def test_cpus_without_a_node_form_a_core_group_of_their_own() -> None:
    files = topology_files(lists("0-3"), "cache/index0/shared_cpu_list")
    files |= {f"{CPU}/cpu{n}/cache/index0/level": "3" for n in range(4)}
    files |= {f"{NODE}/node1/cpulist": "1,3"}
    facts = interpret_sysfs(raw(files, folders={NODE: ("node1",)}))
    assert [str(group.cpus) for group in facts.core_groups] == ["0,2", "1,3"]
    assert "CPUs 0,2 belong to no NUMA node" in facts.notes


def pci_host(name: str, target: str, **files: str) -> RawSysfs:
    return raw(
        {f"{PCI}/{name}/{file}": text for file, text in files.items()},
        folders={PCI: (name,)},
        links={f"{PCI}/{name}": target} if target else {},
    )


@pytest.mark.parametrize(("text", "node"), [("-1", None), ("0", 0), ("1", 1), ("", None), ("x", None)])
def test_the_numa_node_of_a_device_is_none_unless_the_kernel_names_one(text: str, node: int | None) -> None:
    (device,) = interpret_sysfs(pci_host("0000:3b:00.0", "", numa_node=text)).pci
    assert device.numa_node == node


def test_a_device_has_its_class_its_maker_and_the_online_cpus_beside_it() -> None:
    host = pci_host(
        "0000:3B:00.0",
        "",
        **{"class": "0x030200", "vendor": "0x10de", "device": "0x20b2", "local_cpulist": "2-127"},
    )
    (device,) = interpret_sysfs(host).pci
    assert (device.address, device.pci_class, device.vendor, device.device) == (
        "0000:3b:00.0",
        0x030200,
        0x10DE,
        0x20B2,
    )
    assert device.local_cpus == cpus("2-3")


@pytest.mark.parametrize(
    ("target", "root", "bridges"),
    [
        ("sys/devices/pci0000:17/0000:1b:00.0", "pci0000:17", ()),
        ("sys/devices/pci0000:17/0000:17:00.0/0000:1b:00.0", "pci0000:17", ("0000:17:00.0",)),
        (
            "sys/devices/platform/4000.pcie/pci0000:00/0000:00:01.0/0000:1b:00.0",
            "pci0000:00",
            ("0000:00:01.0",),
        ),
        # behind an Intel VMD controller: a second host bridge below the first
        (
            "sys/devices/pci0000:00/0000:00:0e.0/pci10000:00/10000:00:02.0/0000:1b:00.0",
            "pci0000:00",
            ("0000:00:0e.0", "10000:00:02.0"),
        ),
        ("", None, ()),
        ("sys/devices/pci0000:17/0000:17:00.0", None, ()),
    ],
)
def test_the_way_to_a_device_names_its_host_bridge_and_the_bridges_between(
    target: str, root: str | None, bridges: tuple[str, ...]
) -> None:
    (device,) = interpret_sysfs(pci_host("0000:1b:00.0", target)).pci
    assert (device.root_complex, device.bridges) == (root, bridges)


def test_network_names_come_from_the_class_links_and_from_the_folders_of_devices() -> None:
    host = raw(
        folders={
            PCI: ("0000:01:00.0", "0000:02:00.0"),
            "sys/class/net": ("ib0", "eth0", "lo"),
            "sys/class/infiniband": ("mlx5_0",),
            f"{PCI}/0000:02:00.0/net": ("eth1",),
        },
        links={
            "sys/class/net/ib0": "sys/devices/pci0000:00/0000:01:00.0/net/ib0",
            "sys/class/net/eth0": "sys/devices/pci0000:00/0000:02:00.0/virtio1/net/eth0",
            "sys/class/net/lo": "sys/devices/virtual/net/lo",
            "sys/class/infiniband/mlx5_0": "sys/devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0",
        },
    )
    first, second = interpret_sysfs(host).pci
    assert (first.net, first.infiniband) == (("ib0",), ("mlx5_0",))
    assert (second.net, second.infiniband) == (("eth0", "eth1"), ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", ""),
        ("3", "0-1"),
        ("00000001,00000000", "32"),
        ("ffff,ffffffff", "0-47"),
        ("1,0", "32"),
        ("F", "0-3"),
    ],
)
def test_a_kernel_map_is_read(text: str, expected: str) -> None:
    assert str(parse_cpu_map(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "g", "123456789", "1,,1", "-1", "0x1", "1," + ",".join(["0"] * (MAX_CPU // 32 + 1))]
)
def test_a_damaged_map_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="CPU map"):
        parse_cpu_map(text)


def test_the_cpuset_of_version_2_is_looked_for_from_the_group_upwards() -> None:
    assert cpuset_files(
        mounts="cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0", cgroup="0::/user.slice/a", cpuset=""
    ) == (
        "sys/fs/cgroup/user.slice/a/cpuset.cpus.effective",
        "sys/fs/cgroup/user.slice/cpuset.cpus.effective",
        "sys/fs/cgroup/cpuset.cpus.effective",
    )


def test_the_cpuset_of_version_1_comes_before_version_2() -> None:
    files = cpuset_files(
        mounts="c /sys/fs/cgroup/unified cgroup2 rw 0 0\nc /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\nshort line",
        cgroup="3:cpuset:/job\n0::/else",
        cpuset="/job",
    )
    assert files[0] == "sys/fs/cgroup/cpuset/job/cpuset.effective_cpus"
    assert files[-1] == "sys/fs/cgroup/unified/cpuset.cpus.effective"


def test_a_group_outside_of_the_namespace_is_never_looked_for_above_the_mount() -> None:
    files = cpuset_files(mounts="c /cg cgroup2 rw 0 0", cgroup="0::/../../x", cpuset="")
    assert files == ("cg/x/cpuset.cpus.effective", "cg/cpuset.cpus.effective")


def test_cpus_that_the_control_group_hides_stay_part_of_the_hardware() -> None:
    facts = interpret_sysfs(
        raw(
            {
                "proc/self/mounts": "c /cg cgroup2 rw 0 0",
                "proc/self/cgroup": "0::/job",
                "cg/job/cpuset.cpus.effective": "1-2,9",
            }
        )
    )
    assert (facts.online, facts.allowed) == (cpus("0-3"), cpus("1-2"))

"""Counting NVLinks as nvidia-smi does, PCI addresses, and what makes a GPU unfit or busy."""

from dataclasses import replace

import pytest

from topod.discovery.gpufacts import (
    MIB,
    GpuFact,
    GpuFacts,
    GpuLive,
    GpuProcess,
    LiveFacts,
    NvLink,
    PairFact,
    busy_reasons,
    normalise_pci,
    nvlink_lanes,
)

A, B = "0000:17:00.0", "0000:31:00.0"
SWITCH = "0000:05:00.0"


def links(count: int, **far_end: object) -> tuple[NvLink, ...]:
    return tuple(NvLink(number=number, **far_end) for number in range(count))  # type: ignore[arg-type]  # test data


def lanes(
    a: tuple[NvLink, ...] | None, b: tuple[NvLink, ...] | None, *, joined: bool | None = None
) -> int | None:
    gpus = (
        GpuFact(index=0, uuid="GPU-0", pci_address=A, nvlinks=a),
        GpuFact(index=1, uuid="GPU-1", pci_address=B, nvlinks=b),
    )
    return nvlink_lanes(GpuFacts(gpus=gpus, pairs=(PairFact(a=0, b=1, p2p_nvlink=joined),)))[0, 1]


def test_direct_links_are_counted_per_pair() -> None:
    assert lanes(links(4, remote="gpu", remote_pci=B), links(4, remote="gpu", remote_pci=A)) == 4


def test_one_end_that_names_the_other_is_enough() -> None:
    assert lanes(links(2, remote="unknown", remote_pci=B), links(2, remote="unknown")) == 2


def test_through_switches_a_pair_has_the_links_of_the_gpu_with_fewer() -> None:
    through = {"remote": "switch", "remote_pci": SWITCH}
    assert lanes(links(18, **through), links(17, **through), joined=True) == 17
    assert lanes(links(18, **through), links(17, **through)) == 17


def test_switch_links_join_nothing_where_the_driver_denies_it() -> None:
    through = {"remote": "switch", "remote_pci": SWITCH}
    assert lanes(links(18, **through), links(18, **through), joined=False) == 0


def test_links_to_unnamed_ends_count_only_where_the_driver_says_that_the_pair_is_joined() -> None:
    unnamed = links(6)
    assert lanes(unnamed, unnamed, joined=True) == 6
    assert lanes(unnamed, unnamed, joined=None) is None
    assert lanes(unnamed, unnamed, joined=False) == 0


def test_links_of_an_old_driver_to_a_power_processor_do_not_count() -> None:
    to_cpu = links(3, remote_pci="0004:00:00.0", remote_vendor=0x1014)
    assert lanes(to_cpu, to_cpu, joined=None) == 0


def test_a_pair_that_is_joined_over_links_that_cannot_be_seen_is_uncounted() -> None:
    assert lanes((), (), joined=True) is None
    assert lanes(None, None, joined=True) is None
    assert lanes(None, None, joined=None) is None
    assert lanes(None, None, joined=False) == 0


def test_a_pair_without_links_has_none() -> None:
    assert lanes((), ()) == 0


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:3B:00.0", "0000:3b:00.0"),
        ("0000:3b:00.0", "0000:3b:00.0"),
        ("3B:00.0", "0000:3b:00.0"),
        ("00010000:01:00.1", "10000:01:00.1"),
    ],
)
def test_pci_addresses_are_written_as_the_kernel_does(text: str, address: str) -> None:
    assert normalise_pci(text) == address


@pytest.mark.parametrize("text", ["", "3b", "0000:3b:00", "0000:xx:00.0", "1:2:3:4.0"])
def test_other_texts_are_no_pci_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="not a PCI address"):
        normalise_pci(text)


def busy(gpu: GpuLive, *, quietest: int | None = None, ignore_pids: tuple[int, ...] = ()) -> dict[str, str]:
    seen = replace(gpu, idle_bytes=None if quietest is None else quietest * MIB)
    return busy_reasons(LiveFacts(gpus=(seen,)), ("GPU-0",), ignore_pids=ignore_pids)


def test_a_desktop_does_not_make_a_gpu_busy_but_its_memory_can() -> None:
    desktop = (GpuProcess(pid=900, kind="graphics", memory_bytes=300 * MIB),)
    assert busy(GpuLive(uuid="GPU-0", processes=desktop, memory_used_bytes=300 * MIB)) == {}
    assert busy(GpuLive(uuid="GPU-0", processes=desktop, memory_used_bytes=3000 * MIB)) == {
        "GPU-0": "2.9 GiB in use, at most 1.0 GiB when free"
    }


def test_memory_counts_from_the_quietest_that_was_seen() -> None:
    gpu = GpuLive(uuid="GPU-0", processes=(), memory_used_bytes=1500 * MIB)
    assert busy(gpu, quietest=1400) == {}
    assert busy(gpu, quietest=100) == {"GPU-0": "1.5 GiB in use, at most 356 MiB when free"}


def test_a_process_of_unknown_memory_makes_a_gpu_busy_unless_it_is_to_be_ignored() -> None:
    gpu = GpuLive(uuid="GPU-0", processes=(GpuProcess(pid=7),))
    assert busy(gpu) == {"GPU-0": "pid 7 is on it"}
    assert busy(gpu, ignore_pids=(7,)) == {}


def test_what_an_ignored_process_holds_does_not_count_and_what_others_left_does() -> None:
    server = (GpuProcess(pid=7, memory_bytes=2000 * MIB),)
    gpu = GpuLive(uuid="GPU-0", processes=server, memory_used_bytes=2200 * MIB)
    assert busy(gpu, quietest=4, ignore_pids=(7,)) == {}
    assert busy(replace(gpu, memory_used_bytes=2300 * MIB), quietest=4, ignore_pids=(7,)) == {
        "GPU-0": "2.2 GiB in use, at most 260 MiB when free"
    }


def test_a_gpu_that_does_not_tell_its_processes_or_is_lost_is_not_free() -> None:
    assert busy(GpuLive(uuid="GPU-0")) == {"GPU-0": "NVML does not tell its processes"}
    assert busy(GpuLive(uuid="GPU-0", problem="GPU is lost")) == {"GPU-0": "GPU is lost"}

"""The NVML probe and its worker process against the stand-in library of tests/nvml."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nvml.stand_in import World, build_library, eight_hgx, four_a100_in_pairs, one_gpu, uuid
from topod.adapters import nvml_probe
from topod.adapters.gpu_check import NvmlGpuProbe
from topod.adapters.nvml_probe import NvmlProbe
from topod.discovery.gpufacts import GpuFacts, XidEvent, nvlink_lanes
from topod.errors import ProbeError
from topod.health.rules import HealthRules

PATIENT = 30.0
"""Seconds for a call that is expected to answer: generous, since the test machine may be busy."""
Start = Callable[..., NvmlProbe]
STRICT = HealthRules(ignore_processes=())


class Clock:
    """A monotonic clock that a test can push forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml-old"), "-DOLD_DRIVER")


@pytest.fixture
def start(library: Path) -> Iterator[Start]:
    probes: list[NvmlProbe] = []

    def start_probe(world: World, *, on: Path = library, clock: Clock | None = None) -> NvmlProbe:
        environment = world.environment(on)
        probes.append(NvmlProbe(environment=environment, **({"clock": clock} if clock else {})))
        return probes[-1]

    yield start_probe
    for probe in probes:
        probe.close()


def worker_pid(probe: NvmlProbe) -> int:
    assert probe._worker is not None
    return probe._worker.pid


def test_lasting_facts_of_a_gpu_are_read(start: Start, tmp_path: Path) -> None:
    facts = start(four_a100_in_pairs(tmp_path)).snapshot(PATIENT)
    gpu = facts.gpus[2]
    assert facts.driver == "550.163.01"
    assert (gpu.index, gpu.uuid, gpu.name) == (2, uuid(2), "NVIDIA A100-PCIE-40GB")
    assert gpu.pci_address == "0000:b1:00.0"
    assert gpu.memory_bytes == 40960 * 1024**2
    assert gpu.memory_nodes == (1,)
    assert gpu.own_numa_node is None
    assert gpu.cpus == "16-31,48-63"
    assert gpu.mig is False


def test_bridged_pairs_count_their_direct_nvlinks(start: Start, tmp_path: Path) -> None:
    facts = start(four_a100_in_pairs(tmp_path)).snapshot(PATIENT)
    lanes = nvlink_lanes(facts)
    assert {pair for pair, count in lanes.items() if count == 12} == {(0, 1), (2, 3)}
    assert all(count == 0 for pair, count in lanes.items() if pair not in {(0, 1), (2, 3)})
    assert [(pair.ancestor, pair.p2p_nvlink, pair.p2p_read) for pair in facts.pairs[:2]] == [
        ("NODE", True, True),
        ("SYS", False, False),
    ]


def test_a_link_that_is_down_does_not_count(start: Start, tmp_path: Path) -> None:
    world = four_a100_in_pairs(tmp_path)
    facts = start(world.link(0, 3, "down").link(1, 3, "down").save()).snapshot(PATIENT)
    assert nvlink_lanes(facts)[0, 1] == 11


@pytest.mark.parametrize(("name", "links"), [("NVIDIA H100 80GB HBM3", 18), ("NVIDIA A100-SXM4-80GB", 12)])
def test_through_nvswitch_every_pair_has_all_the_links(
    start: Start, tmp_path: Path, name: str, links: int
) -> None:
    facts = start(eight_hgx(tmp_path, links=links, name=name)).snapshot(PATIENT)
    lanes = nvlink_lanes(facts)
    assert len(lanes) == 28
    assert set(lanes.values()) == {links}


def test_a_gpu_without_nvlink_has_no_links_and_no_guessed_node(start: Start, tmp_path: Path) -> None:
    gpu = start(one_gpu(tmp_path)).snapshot(PATIENT).gpus[0]
    assert gpu.nvlinks == ()
    assert gpu.memory_nodes is None
    assert gpu.mig is None


def test_nvlinks_to_a_power9_processor_join_no_gpus(start: Start, tmp_path: Path) -> None:
    world = World(tmp_path)
    for i in range(2):
        world.gpu(i, f"0004:0{4 + i}:00.0", "Tesla V100-SXM2-16GB", 16384, node=0, cpus="0-79")
        for number in range(3):
            world.link(i, number, "npu 0004:00:00.0")
    facts = start(world.pair(0, 1, "PHB").save()).snapshot(PATIENT)
    assert nvlink_lanes(facts) == {(0, 1): 0}


def test_an_old_driver_without_newer_functions_still_gives_links_and_processes(
    start: Start, old_library: Path, tmp_path: Path
) -> None:
    world = four_a100_in_pairs(tmp_path).put(gpu__1__compute__0="4242 20000").save()
    probe = start(world, on=old_library)
    facts, live = probe.snapshot(PATIENT), probe.live(PATIENT).of(uuid(1))
    gpu = facts.gpus[1]
    assert nvlink_lanes(facts)[0, 1] == 12
    assert nvlink_lanes(facts)[0, 2] == 0
    assert gpu.cpus == "0-15,32-47"
    assert (gpu.memory_nodes, gpu.own_numa_node, gpu.mig, facts.pairs[0].p2p_nvlink) == (
        None,
        None,
        None,
        None,
    )
    assert live is not None
    assert live.processes is not None
    assert [process.pid for process in live.processes] == [4242]
    assert live.remap_failed is None
    with pytest.raises(ProbeError, match="NVML offers no events"):
        probe.events(PATIENT)


def test_functions_that_fail_leave_their_facts_out_and_nothing_else(start: Start, tmp_path: Path) -> None:
    world = four_a100_in_pairs(tmp_path)
    world.put(answer__nvmlDeviceGetName=999, answer__nvmlDeviceGetPciInfo_v3__0=3)
    world.put(answer__nvmlDeviceGetTemperature=999, answer__nvmlDeviceGetComputeRunningProcesses_v3=4)
    probe = start(world.put(answer__nvmlDeviceGetComputeRunningProcesses_v2=4).save())
    facts, live = probe.snapshot(PATIENT), probe.live(PATIENT)
    assert [gpu.pci_address for gpu in facts.gpus] == [None, "0000:31:00.0", "0000:b1:00.0", "0000:ca:00.0"]
    assert {gpu.name for gpu in facts.gpus} == {""}
    assert {gpu.temperature_celsius for gpu in live.gpus} == {None}
    assert {gpu.processes for gpu in live.gpus} == {None}
    assert {gpu.utilisation_percent for gpu in live.gpus} == {0}


def test_processes_and_memory_follow_the_world(start: Start, tmp_path: Path) -> None:
    world = four_a100_in_pairs(tmp_path)
    probe = start(world)
    assert probe.busy((uuid(0), uuid(1)), PATIENT) == {}
    world.put(gpu__1__compute__0="4242 20000", gpu__1__compute__1="4243 100", gpu__1__graphics__0="900 9")
    world.put(gpu__1__used=20200, gpu__1__utilisation=97).save()
    live = probe.live(PATIENT).of(uuid(1))
    assert live is not None
    assert live.processes is not None
    assert [(process.pid, process.kind) for process in live.processes] == [
        (900, "graphics"),
        (4242, "compute"),
        (4243, "compute"),
    ]
    assert live.processes[1].memory_bytes == 20000 * 1024**2
    assert (live.memory_used_bytes, live.utilisation_percent) == (20200 * 1024**2, 97)
    assert probe.processes(PATIENT)[uuid(0)] == ()


def test_a_gpu_is_free_only_when_processes_are_gone_and_memory_is_back(start: Start, tmp_path: Path) -> None:
    world = four_a100_in_pairs(tmp_path)
    probe = start(world)
    probe.live(PATIENT)
    both = (uuid(0), uuid(1))
    world.put(gpu__1__compute__0="4194305 20000", gpu__1__used=20000).save()  # beyond any PID there can be
    assert probe.busy(both, PATIENT) == {
        uuid(1): "pid 4194305 holds 19.5 GiB; 19.5 GiB in use, at most 260 MiB when free"
    }
    world.drop("gpu.1.compute.0").put(gpu__1__used=700).save()
    assert probe.busy(both, PATIENT) == {uuid(1): "700 MiB in use, at most 260 MiB when free"}
    world.put(gpu__1__used=5).save()
    assert probe.busy(both, PATIENT) == {}
    assert probe.busy(["GPU-unheard-of"], PATIENT) == {"GPU-unheard-of": "NVML does not know it"}


def test_a_process_of_an_ignored_name_keeps_no_gpu_from_a_job(start: Start, tmp_path: Path) -> None:
    server = tmp_path / "nvidia-cuda-mps-server"
    shutil.copy(shutil.which("sleep") or "", server)
    running = subprocess.Popen([server, "600"])
    try:
        world = four_a100_in_pairs(tmp_path)
        world.put(gpu__1__compute__0=f"{running.pid} 2000", gpu__1__used=2000).save()
        probe = start(world)
        strict, site = (NvmlGpuProbe(probe, PATIENT, rules.ignores) for rules in (STRICT, HealthRules()))
        assert f"pid {running.pid} (nvidia-cuda-mps" in strict.busy((uuid(1),))[uuid(1)]
        assert site.busy((uuid(0), uuid(1))) == {}
        world.put(gpu__1__compute__1="4194305 100").save()
        assert site.busy((uuid(1),)) == {uuid(1): "pid 4194305 holds 100 MiB"}
    finally:
        running.kill()
        running.wait()


def test_the_health_of_each_gpu_is_read(start: Start, tmp_path: Path) -> None:
    world = four_a100_in_pairs(tmp_path).put(gpu__0__ecc=3, gpu__0__recovery=4, gpu__1__mig=1)
    world.put(gpu__2__remap=1, gpu__2__slow=0x40, gpu__3__remap=2, gpu__3__retired=1, gpu__3__recovery=9)
    gpus = start(world.save()).live(PATIENT).gpus
    assert [gpu.ecc_uncorrected for gpu in gpus] == [3, 0, 0, 0]
    assert [gpu.mig for gpu in gpus] == [False, True, False, False]
    assert [(gpu.remap_pending, gpu.remap_failed) for gpu in gpus[2:]] == [(True, False), (False, True)]
    assert [gpu.retired_pending for gpu in gpus] == [None, None, None, True]
    assert [gpu.recovery for gpu in gpus] == ["drain-reset", None, None, "action 9"]
    assert [gpu.slowdown for gpu in gpus] == [None, None, "heat", None]


def test_memory_that_a_dead_process_left_is_no_measure_of_an_idle_gpu(start: Start, tmp_path: Path) -> None:
    probe = start(four_a100_in_pairs(tmp_path).put(gpu__1__used=20000).save())
    for _ in range(3):
        assert probe.busy((uuid(1),), PATIENT) == {uuid(1): "19.5 GiB in use, at most 1.0 GiB when free"}


def test_xid_events_arrive_with_the_gpu_that_had_them(start: Start, tmp_path: Path) -> None:
    world = four_a100_in_pairs(tmp_path)
    probe = start(world)
    assert probe.events(PATIENT) == ()
    world.xid(1, 79)
    assert probe.events(PATIENT, wait_seconds=20) == (XidEvent(uuid=uuid(1), xid=79),)
    assert probe.events(PATIENT) == ()
    world.xid(3, 31)
    (event,) = probe.events(PATIENT, wait_seconds=20)
    assert (event.uuid, event.xid) == (uuid(3), 31)


def test_events_between_two_calls_are_kept(start: Start, tmp_path: Path) -> None:
    world = four_a100_in_pairs(tmp_path)
    probe = start(world)
    probe.live(PATIENT)
    world.xid(0, 48)
    world.xid(2, 63)
    seen = list(probe.events(PATIENT, wait_seconds=20))
    while len(seen) < 2:
        seen += probe.events(PATIENT, wait_seconds=20)
    assert [(event.uuid, event.xid) for event in seen] == [(uuid(0), 48), (uuid(2), 63)]


def test_a_lost_gpu_is_reported_and_hides_no_other(start: Start, tmp_path: Path) -> None:
    world = four_a100_in_pairs(tmp_path)
    probe = start(world)
    probe.snapshot(PATIENT)
    world.put(gpu__2__lost=1).save()
    live = probe.live(PATIENT)
    assert {gpu.uuid: gpu.problem for gpu in live.gpus} == {
        uuid(0): None,
        uuid(1): None,
        uuid(2): "NVML does not list it any more",
        uuid(3): None,
    }
    assert probe.busy([uuid(2)], PATIENT) == {uuid(2): "NVML does not list it any more"}
    facts = start(world).snapshot(PATIENT)
    assert [(gpu.index, gpu.problem) for gpu in facts.gpus if gpu.uuid is None] == [(2, "GPU is lost")]
    assert nvlink_lanes(facts) == {(0, 1): 12, (0, 3): 0, (1, 3): 0}


def test_a_lost_gpu_costs_the_others_no_xids(start: Start, tmp_path: Path) -> None:
    world = four_a100_in_pairs(tmp_path)
    probe = start(world)
    assert probe.events(PATIENT) == ()
    listening = worker_pid(probe)
    world.put(gpu__2__lost=1).save()
    with pytest.raises(ProbeError, match="NVML tells no more events: GPU is lost"):
        probe.events(PATIENT, wait_seconds=20)
    assert probe.events(PATIENT) == ()
    assert worker_pid(probe) != listening
    world.xid(1, 48)
    assert probe.events(PATIENT, wait_seconds=20) == (XidEvent(uuid=uuid(1), xid=48),)


def test_while_a_gpu_is_missing_a_fresh_worker_looks_now_and_then(start: Start, tmp_path: Path) -> None:
    world, clock = four_a100_in_pairs(tmp_path), Clock()
    probe = start(world, clock=clock)
    probe.live(PATIENT)
    first = worker_pid(probe)
    world.put(gpu__2__lost=1).save()
    probe.live(PATIENT)  # which ends the worker that saw it go
    probe.live(PATIENT)
    second = worker_pid(probe)
    probe.live(PATIENT)
    assert first != second == worker_pid(probe)
    clock.now += nvml_probe.RENEW_SECONDS
    probe.live(PATIENT)
    probe.live(PATIENT)
    assert worker_pid(probe) != second


def test_a_gpu_that_is_lost_halfway_through_is_reported(start: Start, tmp_path: Path) -> None:
    world = four_a100_in_pairs(tmp_path).put(answer__nvmlDeviceGetUtilizationRates__1=15).save()
    live = start(world).live(PATIENT).of(uuid(1))
    assert live is not None
    assert live.problem == "GPU is lost"


def test_a_hang_ends_the_call_and_the_next_call_recovers(start: Start, tmp_path: Path) -> None:
    world = four_a100_in_pairs(tmp_path)
    probe = start(world)
    probe.live(PATIENT)
    hanging = worker_pid(probe)
    world.put(hang__nvmlDeviceGetMemoryInfo_v2=1).save()
    with pytest.raises(ProbeError, match=r"NVML did not answer within 0\.2 s"):
        probe.live(0.2)
    world.drop("hang.nvmlDeviceGetMemoryInfo_v2").save()
    assert len(probe.live(PATIENT).gpus) == 4
    assert worker_pid(probe) != hanging


def test_a_hang_while_nvml_starts_ends_the_call_too(start: Start, tmp_path: Path) -> None:
    probe = start(four_a100_in_pairs(tmp_path).put(hang__nvmlInitWithFlags=1).save())
    with pytest.raises(ProbeError, match="did not answer within"):
        probe.snapshot(0.2)


def test_repeated_failures_are_retried_later_each_time(start: Start, tmp_path: Path) -> None:
    world = four_a100_in_pairs(tmp_path).put(hang__nvmlDeviceGetCount_v2=1).save()
    clock = Clock()
    probe = start(world, clock=clock)
    for _ in range(2):
        with pytest.raises(ProbeError, match="did not answer"):
            probe.live(0.1)
    with pytest.raises(ProbeError, match=r"NVML did not answer within 0\.1 s; it is tried again in 1 s"):
        probe.live(0.1)
    clock.now += 1
    with pytest.raises(ProbeError, match=r"did not answer within 0\.1 s$"):
        probe.live(0.1)
    with pytest.raises(ProbeError, match="tried again in 3 s"):
        probe.live(0.1)
    world.drop("hang.nvmlDeviceGetCount_v2").save()
    clock.now += 3
    assert len(probe.live(PATIENT).gpus) == 4


class Immortal(subprocess.Popen[bytes]):
    """A worker that outlives SIGKILL for as long as the test wants, as one in uninterruptible sleep does."""

    started: list["Immortal"] = []  # noqa: RUF012 - one list for the one test that uses it

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(["sleep", "600"], **{key: options[key] for key in ("stdin", "stdout", "stderr")})  # type: ignore[call-overload]  # the options are Popen's own
        self.started.append(self)

    def kill(self) -> None:
        pass

    def wait(self, timeout: float | None = None) -> int:
        if timeout is None:
            pytest.fail("nothing may wait for a worker without a bound")
        raise subprocess.TimeoutExpired("sleep", timeout)


def test_workers_that_cannot_be_killed_are_left_behind_and_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Immortal)
    clock = Clock()
    probe = NvmlProbe(clock=clock)
    try:
        for _ in range(nvml_probe.MAX_ABANDONED):
            with pytest.raises(ProbeError, match="did not answer"):
                probe.live(0.01)
            clock.now += 100
        with pytest.raises(ProbeError, match="4 NVML workers hang in the driver"):
            probe.live(0.01)
        assert len(Immortal.started) == nvml_probe.MAX_ABANDONED
        probe.close()
    finally:
        for worker in Immortal.started:
            os.kill(worker.pid, signal.SIGKILL)
            super(Immortal, worker).wait(PATIENT)


def test_a_worker_that_dies_is_replaced(start: Start, tmp_path: Path) -> None:
    probe = start(four_a100_in_pairs(tmp_path))
    probe.live(PATIENT)
    worker = probe._worker
    assert worker is not None
    worker.kill()
    worker.wait(PATIENT)
    assert len(probe.live(PATIENT).gpus) == 4


def test_without_the_library_the_error_says_so(start: Start, tmp_path: Path) -> None:
    empty = tmp_path / "no-library" / "libnvidia-ml.so.1"
    probe = start(World(tmp_path).save(), on=empty)
    for _ in range(3):
        with pytest.raises(ProbeError, match=r"^NVML library not found"):
            probe.snapshot(PATIENT)


def test_without_the_driver_the_error_says_so_and_a_loaded_driver_is_found(
    start: Start, tmp_path: Path
) -> None:
    world = World(tmp_path)
    probe = start(world)
    with pytest.raises(ProbeError, match="the NVIDIA driver is not loaded"):
        probe.snapshot(PATIENT)
    world.save()
    assert probe.snapshot(PATIENT) == GpuFacts(driver="550.163.01")


def test_closing_ends_the_worker_and_the_probe_can_be_used_again(start: Start, tmp_path: Path) -> None:
    probe = start(four_a100_in_pairs(tmp_path))
    probe.live(PATIENT)
    worker = probe._worker
    probe.close()
    assert worker is not None
    assert worker.returncode is not None
    assert len(probe.live(PATIENT).gpus) == 4

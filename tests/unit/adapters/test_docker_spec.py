"""The request that creates a container, without an engine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from topod.adapters.docker_engine import _devices_of_spec, is_transient, short
from topod.adapters.docker_logs import LogCopy
from topod.adapters.docker_spec import (
    JOBS_SLICE,
    EngineHost,
    Hardening,
    container_body,
    container_name,
    emulation_notes,
    pinned,
    without_default_ulimits,
)
from topod.errors import JobRejectedError
from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.job import Allocation, Device, JobId, JobSpec, Network

HOST = EngineHost(state_id="s", machine_cpus=CpuSet.parse("0-7"), machine_nodes=(0, 1))
EMULATED = replace(HOST, emulated=True)
SPEC = JobSpec(name="train", command=("python", "train.py"), image="torch:1")
TWO_GPUS = Allocation(
    gpus=("GPU-a", "GPU-b"), gpu_indices=(0, 1), cpus=CpuSet.parse("4-11"), memory_nodes=(1, 2)
)


def body(spec: JobSpec = SPEC, allocation: Allocation = TWO_GPUS, host: EngineHost = HOST) -> dict[str, Any]:
    return container_body(JobId(5), 2, spec, allocation, host)


def environment(request: dict[str, Any]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in request["Env"])


def test_gpus_are_named_by_uuid_and_never_counted() -> None:
    (request,) = body()["HostConfig"]["DeviceRequests"]
    assert request == {"Driver": "nvidia", "DeviceIDs": ["GPU-a", "GPU-b"], "Capabilities": [["gpu"]]}


def test_cdi_is_used_only_where_the_engine_knows_every_gpu() -> None:
    names = ["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"]
    (request,) = body(host=replace(HOST, cdi_devices=frozenset(names)))["HostConfig"]["DeviceRequests"]
    assert request == {"Driver": "cdi", "DeviceIDs": names}
    (request,) = body(host=replace(HOST, cdi_devices=frozenset(names[:1])))["HostConfig"]["DeviceRequests"]
    assert request["Driver"] == "nvidia"


def test_device_files_are_named_beside_the_nvidia_runtime_so_that_a_reload_of_systemd_keeps_the_gpus() -> (
    None
):
    nodes = {"GPU-a": "/dev/nvidia3", "GPU-b": "/dev/nvidia0", "GPU-c": "/dev/nvidia1"}
    host = replace(HOST, gpu_nodes=nodes, control_nodes=("/dev/nvidiactl", "/dev/nvidia-uvm"))
    named = [entry["PathOnHost"] for entry in body(host=host)["HostConfig"]["Devices"]]
    assert named == ["/dev/nvidia3", "/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"]
    # With CDI the engine knows them by itself; a GPU whose file is unknown is left to the runtime alone.
    cdi = frozenset({"nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"})
    assert "Devices" not in body(host=replace(host, cdi_devices=cdi))["HostConfig"]
    assert body(host=replace(host, gpu_nodes={"GPU-a": "/dev/nvidia3"}))["HostConfig"]["Devices"] == []
    assert "Devices" not in body(host=replace(host, emulated=True))["HostConfig"]


def test_podman_would_ignore_gpus_so_the_job_is_rejected() -> None:
    podman = replace(HOST, podman=True)
    with pytest.raises(JobRejectedError, match="Podman"):
        body(host=podman)
    assert body(allocation=Allocation(), host=podman)["HostConfig"]["DeviceRequests"] == []


def test_a_job_without_gpus_sees_none_even_where_the_nvidia_runtime_is_the_default() -> None:
    assert environment(body(allocation=Allocation()))["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert environment(body())["NVIDIA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"


def test_a_job_cannot_ask_the_nvidia_runtime_for_more_than_it_was_given() -> None:
    greedy = replace(SPEC, env={"NVIDIA_VISIBLE_DEVICES": "all"})
    assert environment(body(greedy))["NVIDIA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert environment(body(greedy, Allocation()))["NVIDIA_VISIBLE_DEVICES"] == "void"
    cdi = frozenset({"nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"})
    by_cdi = body(greedy, host=replace(HOST, cdi_devices=cdi))
    assert environment(by_cdi)["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_rights_are_those_of_the_job_less_those_that_no_job_has() -> None:
    assert not {"CapAdd", "CapDrop", "SecurityOpt", "NetworkMode"} & set(body()["HostConfig"])
    rdma = replace(
        SPEC,
        cap_add=("IPC_LOCK",),
        network=Network.HOST,
        devices=(Device(source="/dev/infiniband", target="/dev/infiniband", permissions="rw"),),
    )
    hard = replace(
        HOST, network_mode="none", hardening=Hardening(no_new_privileges=True, drop_capabilities=("NET_RAW",))
    )
    got = body(rdma, Allocation(), hard)["HostConfig"]
    assert (got["CapAdd"], got["CapDrop"], got["NetworkMode"]) == (["IPC_LOCK"], ["NET_RAW"], "host")
    assert got["SecurityOpt"] == ["no-new-privileges"]
    assert got["Devices"] == [
        {"PathOnHost": "/dev/infiniband", "PathInContainer": "/dev/infiniband", "CgroupPermissions": "rw"}
    ]
    assert body(host=hard)["HostConfig"]["NetworkMode"] == "none"
    assert "Privileged" not in got


def test_host_indices_are_never_given_to_cuda_in_a_container() -> None:
    assert "CUDA_VISIBLE_DEVICES" not in environment(body())
    assert environment(body())["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_the_job_overrides_defaults_but_not_what_it_was_given() -> None:
    spec = replace(SPEC, env={"CUDA_DEVICE_ORDER": "FASTEST_FIRST", "TOPOD_CPUS": "0-99"})
    seen = environment(body(spec))
    assert (seen["CUDA_DEVICE_ORDER"], seen["TOPOD_CPUS"]) == ("FASTEST_FIRST", "4-11")


@pytest.mark.parametrize(("value", "passed"), [(None, True), ("1", True), ("", False), ("0", False)])
def test_signals_go_to_the_group_unless_the_job_says_no(value: str | None, passed: bool) -> None:
    spec = SPEC if value is None else replace(SPEC, env={"TINI_KILL_PROCESS_GROUP": value})
    assert ("TINI_KILL_PROCESS_GROUP" in environment(body(spec))) is passed


def test_limits_of_the_job_replace_the_defaults_of_the_same_name() -> None:
    spec = replace(SPEC, ulimits={"memlock": 1024, "nofile": 4096})
    limits = {one["Name"]: one["Hard"] for one in body(spec)["HostConfig"]["Ulimits"]}
    assert limits == {"memlock": 1024, "nofile": 4096, "stack": 64 << 20}


def test_an_engine_that_may_not_raise_limits_gets_only_the_jobs() -> None:
    spec = replace(SPEC, ulimits={"memlock": 1024})
    first = body(spec)
    found = {
        "Config": {"Image": "torch:1", "Labels": first["Labels"], "Hostname": "abc"},
        "HostConfig": first["HostConfig"],
    }
    again = without_default_ulimits(found)
    assert [one["Name"] for one in again["HostConfig"]["Ulimits"]] == ["memlock"]
    assert "Hostname" not in again
    assert first["HostConfig"]["Ulimits"] != again["HostConfig"]["Ulimits"]
    assert body(host=replace(HOST, default_ulimits=False))["HostConfig"]["Ulimits"] == []


def test_a_real_host_pins_what_was_given() -> None:
    assert pinned(TWO_GPUS, HOST) == (TWO_GPUS.cpus, TWO_GPUS.memory_nodes)
    assert emulation_notes(TWO_GPUS, HOST) == ()


def test_an_emulated_host_pins_what_the_machine_has_of_it_and_says_so() -> None:
    assert pinned(TWO_GPUS, EMULATED) == (CpuSet.parse("4-7"), (1,))
    assert len(emulation_notes(TWO_GPUS, EMULATED)) == 3
    away = Allocation(cpus=CpuSet.parse("64-71"), memory_nodes=(3,))
    assert pinned(away, EMULATED) == (NO_CPUS, ())
    host_config = body(allocation=away, host=EMULATED)["HostConfig"]
    assert not {"CpusetCpus", "CpusetMems"} & set(host_config)
    assert host_config["DeviceRequests"] == []


def test_nothing_is_pinned_in_the_shared_pool() -> None:
    assert not {"CpusetCpus", "CpusetMems"} & set(body(allocation=Allocation())["HostConfig"])


def test_a_fraction_of_a_second_of_grace_is_rounded_up() -> None:
    assert body(replace(SPEC, grace_seconds=0.2))["StopTimeout"] == 1


def test_a_job_without_image_is_rejected_with_a_hint() -> None:
    with pytest.raises(JobRejectedError) as caught:
        body(replace(SPEC, image=None))
    assert caught.value.hint


def test_the_digest_tells_requests_apart_and_reserved_labels_stay_topods() -> None:
    labels = body(replace(SPEC, labels={"topod.job": "1", "a": "b"}))["Labels"]
    assert (labels["topod.job"], labels["a"]) == ("5", "b")
    assert body()["Labels"] == body()["Labels"]
    assert body()["Labels"]["topod.digest"] != body(allocation=Allocation())["Labels"]["topod.digest"]
    assert container_name("s", JobId(5), 2) == "topod-s-5-2"


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_cdi_names_are_read_from_spec_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"nvidia.{suffix}"
    path.write_text('{"kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": "GPU-a"}]}')
    assert _devices_of_spec(path) == {"nvidia.com/gpu=0", "nvidia.com/gpu=GPU-a"}
    path.write_text("[broken")
    assert _devices_of_spec(path) == set()


def test_trouble_of_the_network_is_told_from_the_jobs_fault() -> None:
    assert is_transient('Get "https://registry/v2/": dial tcp: lookup registry: no such host')
    assert not is_transient("pull access denied for foo, repository does not exist")


def test_an_errors_text_is_one_short_line() -> None:
    assert short("a\n  b") == "a b"
    assert len(short("x" * 1000)) == 300


FRAMES = [
    b"2026-01-01T00:00:00.000000001Z one\n",
    b"2026-01-01T00:00:00.000000003Z three (later time, first stored)\n",
    b"2026-01-01T00:00:00.000000002Z two\n",
    b"2026-01-01T00:00:01.000000000Z part ",
    b"2026-01-01T00:00:01.000000000Z part ",
    b"2026-01-01T00:00:01.000000000Z end\n",
    b"2026-01-01T00:00:02.000000000Z last",
]
WHOLE = b"".join(frame.split(b" ", 1)[1] for frame in FRAMES)


@pytest.mark.parametrize("cut", range(len(FRAMES) + 1))
def test_a_log_copy_taken_up_anywhere_neither_loses_nor_doubles(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "1.1.log"
    first = LogCopy(path)
    assert first.begin() == 1
    for frame in FRAMES[:cut]:
        first.add(frame)
    first.close()
    with path.open("ab") as file:
        file.write(b"written but not yet on record")
    second = LogCopy(path)
    for _ in range(2):
        since = second.begin()
        assert since <= 1767225600 + 2
        for frame in FRAMES:
            second.add(frame)
    second.close()
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize("damage", [b"", b"7\n", b"x\nend\n", b"5\nno-time 1\nend\n", b"999999\nend\n"])
def test_a_damaged_position_means_from_the_beginning(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "1.1.log"
    path.write_bytes(b"stale")
    (tmp_path / ".1.1.log.position").write_bytes(damage)
    copy = LogCopy(path)
    copy.begin()
    for frame in FRAMES:
        copy.add(frame)
    copy.close()
    assert path.read_bytes() == WHOLE


def test_containers_are_put_into_the_slice_only_where_systemd_makes_their_cgroups() -> None:
    assert "CgroupParent" not in body()["HostConfig"]
    assert (
        body(host=replace(HOST, cgroup_parent=JOBS_SLICE))["HostConfig"]["CgroupParent"] == "topod-jobs.slice"
    )

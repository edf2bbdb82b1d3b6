"""What the doctor says of a machine's settings, on folders that look like such machines."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from topoctl.doctor.check import Check, output
from topoctl.doctor.clock import coordinators_clock, own_clock
from topoctl.doctor.engine import container_gpus, log_limits
from topoctl.doctor.files import configured, key, state
from topoctl.doctor.gpus import driver_version, services
from topoctl.doctor.kernel import limits, memory, time_sync
from topod.adapters.curve_keys import create_key_file, public_line, read_key_file
from topod.adapters.docker_engine import EngineFacts
from topod.protocol.curve import Kind
from topod.protocol.replies import Welcome

DRIVER = "550.54.15"
FACTS = EngineFacts(
    name="docker",
    version="26",
    api_version="1.45",
    podman=False,
    cdi_devices=frozenset(),
    log_driver="json-file",
)


def put(root: Path, path: str, text: str = "", mode: int = 0o644) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


def program(root: Path, name: str, says: str) -> str:
    """Have a program on a search path of its own that prints this; return the path."""
    put(root, f"bin/{name}", f"#!/bin/sh\necho '{says}'\n", 0o755)
    return str(root / "bin")


def load_driver(root: Path, version: str = DRIVER) -> None:
    put(
        root,
        "proc/driver/nvidia/version",
        f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue\nGCC\n",
    )


def only(checks: Iterator[Check]) -> Check:
    (check,) = checks
    return check


def test_a_fabric_manager_of_another_version_than_the_driver_is_bad(tmp_path: Path) -> None:
    load_driver(tmp_path)
    (tmp_path / "proc/driver/nvidia-nvswitch/devices").mkdir(parents=True)
    path = program(tmp_path, "nv-fabricmanager", "Fabric Manager version is : 535.104.05")
    fabric = list(services(tmp_path, path))[-1]
    assert (fabric.name, fabric.verdict) == ("fabric", "bad")
    assert fabric.mend == "sudo apt-get install nvidia-fabricmanager-550=550.54.15-1"
    program(tmp_path, "nv-fabricmanager", f"Fabric Manager version is : {DRIVER}")
    program(tmp_path, "systemctl", "active")
    assert list(services(tmp_path, path))[-1].verdict == "ok"


def test_persistence_that_nvidia_smi_has_set_counts_too(tmp_path: Path) -> None:
    load_driver(tmp_path)
    path = program(tmp_path, "nvidia-smi", "Enabled")
    assert next(services(tmp_path, path)).verdict == "ok"
    program(tmp_path, "nvidia-smi", "Disabled")
    assert next(services(tmp_path, path)).mend == "sudo systemctl enable --now nvidia-persistenced"


def test_device_files_that_only_root_may_open_are_named(tmp_path: Path) -> None:
    load_driver(tmp_path)
    put(tmp_path, "dev/nvidia0", mode=0o600)
    put(tmp_path, "dev/nvidia1", mode=0o666)
    put(tmp_path, "dev/nvidia-modeset", mode=0o600)
    assert [check.text for check in services(tmp_path, "/none") if check.name == "devices"] == [
        "only some users may open /dev/nvidia0: others' jobs get no GPU"
    ]


def test_cdi_of_another_driver_than_is_loaded_is_bad(tmp_path: Path) -> None:
    put(tmp_path, "etc/cdi/nvidia.yaml", "hostPath: /usr/lib/libcuda.so.535.104.05\n")
    load_driver(tmp_path)
    path = program(tmp_path, "nvidia-ctk", "NVIDIA Container Toolkit CLI version 1.16.2")
    check = container_gpus(FACTS, driver_version(tmp_path), tmp_path, path)
    assert (check.verdict, check.mend) == (
        "bad",
        "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
    )
    put(tmp_path, "etc/cdi/nvidia.yaml", f"hostPath: /usr/lib/libcuda.so.{DRIVER}\n")
    facts = replace(FACTS, cdi_devices=frozenset({"nvidia.com/gpu=0"}))
    check = container_gpus(facts, driver_version(tmp_path), tmp_path, path)
    assert (check.verdict, check.text) == (
        "ok",
        "the engine has 1 CDI device of nvidia.com/gpu (NVIDIA container toolkit 1.16.2)",
    )


def test_without_a_toolkit_the_remedy_installs_it_first(tmp_path: Path) -> None:
    assert container_gpus(FACTS, None, tmp_path, "/none").mend.startswith("sudo apt-get install")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (None, "warn"),
        ('{"log-opts": {"max-size": "50m"}}', "ok"),
        ('{"log-opts": {"labels": "x"}}', "warn"),
        ("{not json", "warn"),
        ("[]", "warn"),
    ],
)
def test_logs_of_other_containers_want_a_bound(tmp_path: Path, text: str | None, verdict: str) -> None:
    if text is not None:
        put(tmp_path, "etc/docker/daemon.json", text)
    assert only(log_limits(FACTS, tmp_path)).verdict == verdict
    if verdict == "ok":
        json.loads(text or "")


def test_a_way_to_log_without_files_needs_no_bound(tmp_path: Path) -> None:
    assert only(log_limits(replace(FACTS, log_driver="journald"), tmp_path)).verdict == "ok"


def test_huge_pages_that_nobody_uses_or_that_one_node_has_alone_are_told(tmp_path: Path) -> None:
    def pages(node: int, kept: int, free: int) -> None:
        folder = f"sys/devices/system/node/node{node}/hugepages/hugepages-2048kB"
        put(tmp_path, f"{folder}/nr_hugepages", f"{kept}\n")
        put(tmp_path, f"{folder}/free_hugepages", f"{free}\n")

    pages(0, 0, 0)
    pages(1, 0, 0)
    assert only(memory(tmp_path)).text == "none are set apart"
    pages(0, 1024, 1024)
    assert (
        only(memory(tmp_path)).text == "2 GiB set apart, 2 GiB of it not in use: other memory is less by that"
    )
    pages(0, 1024, 512)
    check = only(memory(tmp_path))
    assert (check.verdict, "none on node1" in check.text) == ("warn", True)
    pages(1, 1024, 512)
    assert only(memory(tmp_path)).verdict == "ok"


def test_a_limit_of_locked_memory_matters_where_topod_does_not_set_it(tmp_path: Path) -> None:
    put(tmp_path, "proc/meminfo", "MemTotal:       67108864 kB\n")
    put(
        tmp_path,
        "proc/self/limits",
        "Max locked memory         8388608              8388608              bytes\n",
    )
    (tmp_path / "dev/shm").mkdir(parents=True)
    found = {check.name: check for check in limits(None, containers=True, rootless=False, root=tmp_path)}
    assert {check.verdict for check in found.values()} == {"ok"}
    for containers, rootless in ((False, False), (True, True)):
        *_, locked = limits(None, containers=containers, rootless=rootless, root=tmp_path)
        assert (locked.verdict, "8 MiB" in locked.text) == ("warn", True)
    put(
        tmp_path,
        "proc/self/limits",
        "Max locked memory         unlimited            unlimited            bytes\n",
    )
    *_, locked = limits(None, containers=False, rootless=False, root=tmp_path)
    assert locked.verdict == "ok"


def test_a_machine_with_less_memory_than_a_jobs_shm_is_told(tmp_path: Path) -> None:
    put(tmp_path, "proc/meminfo", "MemTotal:        4194304 kB\n")
    shm, _ = limits(None, containers=True, rootless=False, root=tmp_path)
    assert (shm.verdict, shm.mend) == ("warn", "topoctl submit --shm-size 1g")


def test_the_kernel_is_asked_whether_the_clock_is_kept_right() -> None:
    check = time_sync()
    assert (check.verdict, check.mend) in {("ok", ""), ("warn", "sudo timedatectl set-ntp true")}


def test_clocks_that_differ_are_told_and_those_that_may_agree_are_not() -> None:
    welcome = Welcome(**dict.fromkeys(Welcome.__struct_fields__, ""))  # type: ignore[arg-type] # only clocks are read

    def told(**fields: float | None) -> list[str]:
        asked = msgspec.structs.replace(welcome, **fields)
        return [f"{check.verdict}: {check.text}" for check in coordinators_clock(asked)]

    assert told(coordinator_ahead=None) == []
    assert told(coordinator_ahead=0.2, coordinator_ahead_within=0.1) == [
        "ok: as the coordinator's, within 0.30 s"
    ]
    assert told(coordinator_ahead=-7.0, coordinator_ahead_within=0.1) == [
        "warn: the clock is 7.0 s ahead of the coordinator's"
    ]
    assert told(coordinator_ahead=2.5, coordinator_ahead_within=1.0)[0].startswith("ok")
    assert only(own_clock(Welcome(**{**_blank(), "now": 1010.0}), 1000.0, 1002.0)).text == (  # type: ignore[arg-type]
        "the clock is 9.0 s behind the coordinator's"
    )


def test_a_state_folder_that_others_may_enter_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert state(tmp_path).mend == f"chmod 700 {tmp_path}"
    tmp_path.chmod(0o700)
    assert state(tmp_path).verdict == "ok"


def test_keys_are_there_of_the_right_kind_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "host.key"
    assert key(path, Kind.HOST).mend == f"topoctl keys new NAME --host --out {path}"
    create_key_file(path, Kind.HOST, "gpu-1")
    assert key(path, Kind.HOST).verdict == "ok"
    assert key(path, Kind.COORDINATOR).verdict == "bad"
    path.chmod(0o644)
    open_to_all = key(path, Kind.HOST)
    assert (open_to_all.verdict, open_to_all.mend.startswith(f"chmod 600 {path}")) == ("bad", True)


def test_a_configuration_with_a_mistake_is_bad_and_its_keys_are_looked_at(tmp_path: Path) -> None:
    path = put(tmp_path, "topod.toml", "[fairnes]\n")
    environ = {"TOPOD_CONFIG": str(path)}
    assert [(check.name, check.verdict) for check in configured(environ)] == [("config", "bad")]
    coordinator = tmp_path / "coordinator.key"
    create_key_file(coordinator, Kind.COORDINATOR, "c")
    public = public_line(read_key_file(coordinator))
    path.write_text(
        f'[fleet]\ncoordinator = "tcp://c:7461"\ncoordinator_key = "{public}"\nkey_file = "{tmp_path}/host.key"\n'
        f'[coordinator]\nkey_file = "{coordinator}"\nauthorized_keys = "{tmp_path}/authorized_keys"\n'
    )
    verdicts = {check.name: check.verdict for check in configured(environ)}
    assert verdicts == {"config": "ok", "host key": "bad", "coordinator key": "ok", "authorized": "bad"}
    create_key_file(tmp_path / "host.key", Kind.HOST, "gpu-1")
    put(tmp_path, "authorized_keys", "", 0o600)
    assert {check.verdict for check in configured(environ)} == {"ok"}


def test_a_program_that_hangs_or_fails_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topoctl.doctor.check.PROBE_SECONDS", 0.2)
    put(tmp_path, "bin/slow", "#!/bin/sh\nexec sleep 60\n", 0o755)
    put(tmp_path, "bin/bad", "#!/bin/sh\necho no; exit 1\n", 0o755)
    path = f"{tmp_path}/bin{os.pathsep}/bin{os.pathsep}/usr/bin"
    assert (output(["slow"], path), output(["bad"], path), output(["none"], path)) == (None, None, None)


def test_the_reference_names_every_line_of_the_doctor() -> None:
    root = Path(__file__).resolve().parents[4]
    page = (root / "docs/reference/doctor.md").read_text()
    for source in (root / "cli/topoctl/doctor").glob("*.py"):
        for name in re.findall(r'name="([^"]+)"', source.read_text()):
            assert f"`{name}`" in page, (source.name, name)


def _blank() -> dict[str, object]:
    return dict.fromkeys(Welcome.__struct_fields__, "")

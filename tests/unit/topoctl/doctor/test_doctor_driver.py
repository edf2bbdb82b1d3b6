"""Settings that bite later: what the doctor says of them, on trees that look like such hosts."""

from dataclasses import replace
from pathlib import Path

import pytest

from topoctl.doctor.engine import traps
from topoctl.doctor.gpus import services
from topoctl.doctor.kernel import memory
from topod.adapters.docker_engine import EngineFacts

FACTS = EngineFacts(
    name="docker", version="26", api_version="1.45", podman=False, cdi_devices=frozenset(),
    live_restore=True, cgroups="v2, driver systemd",
)  # fmt: skip


def put(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_machine_without_a_driver_is_not_troubled_with_its_services(tmp_path: Path) -> None:
    assert list(services(tmp_path)) == []


def test_missing_persistence_and_fabric_manager_are_told_with_what_they_lead_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/none")  # no systemctl: nothing is known to run
    put(tmp_path, "proc/driver/nvidia/version", "NVRM")
    (tmp_path / "proc/driver/nvidia-nvswitch/devices").mkdir(parents=True)
    persistence, fabric = services(tmp_path)
    assert (persistence.verdict, fabric.verdict) == ("warn", "bad")
    assert "802" in fabric.text
    assert fabric.mend == "sudo systemctl enable --now nvidia-fabricmanager"
    put(tmp_path, "run/nvidia-persistenced/socket")
    assert next(services(tmp_path)).verdict == "ok"


def test_an_engine_whose_restart_ends_every_job_is_warned_of() -> None:
    assert [check.verdict for check in traps(FACTS, bare_gpus=False)] == ["ok", "ok"]
    first, _ = traps(replace(FACTS, live_restore=False), bare_gpus=False)
    assert (first.name, first.verdict) == ("live-restore", "warn")


def test_gpus_that_a_reload_of_systemd_would_take_away_are_warned_of() -> None:
    _, cgroups = traps(FACTS, bare_gpus=True)
    assert cgroups.verdict == "warn"
    assert "daemon-reload" in cgroups.text
    _, with_cdi = traps(replace(FACTS, cdi_devices=frozenset({"x"})), bare_gpus=True)
    assert with_cdi.verdict == "ok"


def test_numa_balancing_is_told_where_the_kernel_has_it(tmp_path: Path) -> None:
    assert list(memory(tmp_path)) == []
    put(tmp_path, "proc/sys/kernel/numa_balancing", "1\n")
    assert next(memory(tmp_path)).verdict == "warn"
    put(tmp_path, "proc/sys/kernel/numa_balancing", "0\n")
    assert next(memory(tmp_path)).verdict == "ok"

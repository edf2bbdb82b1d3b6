"""What the doctor says of freezing, on search paths with stand-in programs."""

from dataclasses import replace
from pathlib import Path

from topoctl.doctor.freeze import freezing
from topod.adapters.docker_engine import EngineFacts

FACTS = EngineFacts(
    name="docker", version="26", api_version="1.45", podman=False, cdi_devices=frozenset(), experimental=True
)


def program(folder: Path, name: str, text: str = "") -> None:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{text}'\n")
    file.chmod(0o755)


def driver(root: Path, version: str) -> None:
    (root / "proc/driver/nvidia").mkdir(parents=True)
    text = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue\n"
    (root / "proc/driver/nvidia/version").write_text(text)


def test_a_host_that_is_not_set_up_for_it_is_well(tmp_path: Path) -> None:
    check = freezing(replace(FACTS, experimental=False), tmp_path, str(tmp_path))
    assert check.verdict == "ok"
    assert "stopped and requeued" in check.text


def test_what_is_missing_is_told_with_what_mends_it(tmp_path: Path) -> None:
    program(tmp_path / "bin", "criu", "Version: 3.17.1")
    program(tmp_path / "bin", "tini")
    (tmp_path / "bin/docker-init").symlink_to("tini")
    check = freezing(replace(FACTS, experimental=False), tmp_path, str(tmp_path / "bin"))
    assert check.verdict == "warn"
    assert "criu 3.17.1 is too old" in check.text
    assert '"experimental": true' in check.mend
    assert f'"init-path": "{tmp_path / "bin/tini"}"' in check.mend
    assert "criu is not installed" in freezing(FACTS, tmp_path, "/none").text


def test_the_init_is_the_one_that_the_engine_uses(tmp_path: Path) -> None:
    program(tmp_path / "bin", "criu", "Version: 4.1.1")
    program(tmp_path / "bin", "tini")
    (tmp_path / "bin/docker-init").symlink_to("tini")
    path = str(tmp_path / "bin")
    named = replace(FACTS, init_binary="docker-init")
    assert freezing(named, tmp_path, path).verdict == "warn"
    assert freezing(replace(FACTS, init_binary=f"{path}/tini"), tmp_path, path).verdict == "ok"
    assert (
        f"{path}/docker-init"
        in freezing(replace(FACTS, init_binary=f"{path}/docker-init"), tmp_path, "/none:" + path).text
    )


def test_gpus_need_the_tool_and_a_driver_that_knows_it(tmp_path: Path) -> None:
    program(tmp_path / "bin", "criu", "Version: 4.1.1")
    path = str(tmp_path / "bin")
    assert freezing(FACTS, tmp_path, path).text == "criu 4.1.1; no NVIDIA driver, so only jobs without GPUs"
    driver(tmp_path, "535.183.01")
    assert "no cuda-checkpoint" in freezing(FACTS, tmp_path, path).text
    program(tmp_path / "bin", "cuda-checkpoint")
    assert "driver 535 is older" in freezing(FACTS, tmp_path, path).text
    (tmp_path / "proc/driver/nvidia/version").unlink()
    (tmp_path / "proc/driver/nvidia").rmdir()
    driver(tmp_path, "570.86.10")
    check = freezing(FACTS, tmp_path, path)
    assert (check.verdict, check.text) == (
        "ok",
        "criu 4.1.1; cuda-checkpoint with driver 570: jobs with GPUs too",
    )

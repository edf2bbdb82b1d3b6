"""Device files by UUID, from the text that the NVIDIA driver writes under /proc."""

from pathlib import Path

from topod.adapters.gpu_nodes import control_nodes, gpu_nodes

INFORMATION = """Model: \t\t NVIDIA A100-SXM4-40GB
IRQ:   \t\t 193
GPU UUID: \t {uuid}
Video BIOS: \t 92.00.45.00.03
Bus Type: \t PCIe
Bus Location: \t {address}
Device Minor: \t {minor}
GPU Excluded:\t No
"""


def put(root: Path, address: str, uuid: str, minor: str, *, file: bool = True) -> None:
    folder = root / "proc/driver/nvidia/gpus" / address
    folder.mkdir(parents=True)
    (folder / "information").write_text(INFORMATION.format(uuid=uuid, address=address, minor=minor))
    (root / "dev").mkdir(exist_ok=True)
    if file:
        (root / f"dev/nvidia{minor}").touch()


def test_a_gpu_is_found_by_its_uuid_whatever_its_place_in_the_pci_order(tmp_path: Path) -> None:
    put(tmp_path, "0000:07:00.0", "GPU-aaaa", "3")
    put(tmp_path, "0000:0f:00.0", "GPU-bbbb", "0")
    assert gpu_nodes(tmp_path) == {"GPU-aaaa": "/dev/nvidia3", "GPU-bbbb": "/dev/nvidia0"}


def test_a_gpu_whose_file_is_missing_or_whose_text_is_damaged_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "0000:07:00.0", "GPU-aaaa", "3", file=False)
    put(tmp_path, "0000:0f:00.0", "GPU-bbbb", "unknown")
    assert gpu_nodes(tmp_path) == {}


def test_only_control_files_that_exist_are_named(tmp_path: Path) -> None:
    assert (gpu_nodes(tmp_path), control_nodes(tmp_path)) == ({}, ())
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert control_nodes(tmp_path) == ("/dev/nvidiactl",)

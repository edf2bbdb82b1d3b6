"""The driver, NVML, nvidia-smi, and the services beside them."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from topoctl.doctor.check import EMULATE, PROBE_SECONDS, Check, Verdict, count, output
from topod.errors import ProbeError, TopodError

MAX_SHOWN: Final = 4


def gpus(*, emulated: bool) -> Iterator[Check]:
    """Check driver, NVML and nvidia-smi. Without GPUs a topod that emulates is still fine."""
    missing: Verdict = "warn" if emulated else "bad"
    yield _driver()
    yield _nvml(missing)
    yield _smi()
    yield from services()


def driver_version(root: Path = Path("/")) -> str | None:
    """Return the version of the NVIDIA driver that is loaded; empty: unknown; None: none is."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text.partition("\n")[0])
    return found[1] if found else ""


def services(root: Path = Path("/"), path: str | None = None) -> Iterator[Check]:
    """Yield what is known of the driver's services; nothing where no NVIDIA driver is loaded."""
    driver = driver_version(root)
    if driver is None:
        return
    yield _persistence(root, path)
    yield from _device_files(root)
    if (root / "proc/driver/nvidia-nvswitch/devices").is_dir():
        yield _fabric(driver, path)


def _driver() -> Check:
    try:
        first = (
            Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace").splitlines()[0]
        )
    except (OSError, IndexError):
        return Check(
            name="driver",
            verdict="warn",
            text="no NVIDIA driver is loaded",
            mend="install it (apt-get install nvidia-driver), or " + EMULATE,
        )
    return Check(name="driver", verdict="ok", text=first.removeprefix("NVRM version: "))


def _nvml(missing: Verdict) -> Check:
    from topod.adapters.nvml_probe import NvmlProbe

    probe = NvmlProbe()
    try:
        facts = probe.snapshot(PROBE_SECONDS)
    except ProbeError as error:
        return Check(name="NVML", verdict=missing, text=f"{error.message}: topod finds no GPU", mend=EMULATE)
    finally:
        probe.close()
    if not facts.gpus:
        return Check(name="NVML", verdict=missing, text="NVML answers and lists no GPU", mend=EMULATE)
    lost = [f"GPU{gpu.index}: {gpu.problem}" for gpu in facts.gpus if gpu.problem]
    names = ", ".join(sorted({gpu.name for gpu in facts.gpus if gpu.name}))
    text = f"{count(len(facts.gpus), 'GPU')} ({names}), driver {facts.driver or 'unknown'}"
    if lost:
        return Check(name="NVML", verdict="warn", text=f"{text}; {'; '.join(lost)}", mend="nvidia-smi -q")
    return Check(name="NVML", verdict="ok", text=text)


def _smi() -> Check:
    from topod.adapters.nvidia_smi import topology_matrix
    from topod.discovery.parse_smi_topo import parse_matrix

    try:
        parse_matrix(topology_matrix(PROBE_SECONDS), "nvidia-smi topo -m")
    except TopodError as error:
        return Check(
            name="nvidia-smi",
            verdict="warn",
            text=f"{error.message}: only NVML and sysfs are used",
            mend="nvidia-smi topo -m" if shutil.which("nvidia-smi") else "it comes with the NVIDIA driver",
        )
    return Check(name="nvidia-smi", verdict="ok", text="its matrix can be read, as a second opinion")


def _persistence(root: Path, path: str | None) -> Check:
    name, mend = "persistence", "sudo systemctl enable --now nvidia-persistenced"
    if (root / "run/nvidia-persistenced/socket").exists():
        return Check(name=name, verdict="ok", text="nvidia-persistenced runs")
    said = output(["nvidia-smi", "--query-gpu=persistence_mode", "--format=csv,noheader"], path)
    modes = {line.strip() for line in (said or "").splitlines() if line.strip()}
    if modes == {"Enabled"}:
        return Check(
            name=name,
            verdict="ok",
            text="on, by nvidia-smi -pm 1: the next boot forgets it, nvidia-persistenced would not",
        )
    return Check(
        name=name,
        verdict="warn",
        text="nvidia-persistenced does not run: each first use of an idle GPU takes seconds",
        mend=mend,
    )


def _device_files(root: Path) -> Iterator[Check]:
    """Tell of devices that exist and that not everybody may open; jobs without a container would fail."""
    closed = [
        f"/dev/{file.name}"
        for file in sorted((root / "dev").glob("nvidia*"))
        if re.fullmatch(r"nvidia(ctl|-uvm|\d+)", file.name) and file.stat().st_mode & 0o006 != 0o006
    ]
    if closed:
        more = f" and {len(closed) - MAX_SHOWN} more" if len(closed) > MAX_SHOWN else ""
        yield Check(
            name="devices",
            verdict="warn",
            text=f"only some users may open {', '.join(closed[:MAX_SHOWN])}{more}: others' jobs get no GPU",
            mend="sudo chmod 666 /dev/nvidia*, and for the next boot: "
            "echo options nvidia NVreg_DeviceFileMode=0666 | sudo tee /etc/modprobe.d/nvidia-files.conf",
        )


def _fabric(driver: str, path: str | None) -> Check:
    name = "fabric"
    said = output(["nv-fabricmanager", "--version"], path) or ""
    found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", said)
    if found and driver and found[1] != driver:
        return Check(
            name=name,
            verdict="bad",
            text=f"the fabric manager is {found[1]}, the driver {driver}: they must be the same:"
            " CUDA fails with error 802",
            mend=f"sudo apt-get install nvidia-fabricmanager-{driver.partition('.')[0]}={driver}-1",
        )
    if output(["systemctl", "is-active", "nvidia-fabricmanager"], path) is not None:
        return Check(name=name, verdict="ok", text="NVSwitches, and the fabric manager runs")
    return Check(
        name=name,
        verdict="bad",
        text="NVSwitches without a fabric manager: CUDA fails with error 802",
        mend="sudo systemctl enable --now nvidia-fabricmanager",
    )

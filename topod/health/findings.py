"""What is wrong with one GPU at this moment, as one reading shows it."""

from dataclasses import dataclass
from typing import Final

from topod.discovery.gpufacts import GpuLive
from topod.health.rules import HealthRules

RECOVERY: Final = {
    "reset": "the driver asks for a reset of the GPU",
    "reboot": "the driver asks for a reboot",
    "drain-p2p": "the driver asks that its peer-to-peer jobs end",
    "drain-reset": "the driver asks for a reset of the GPU once its jobs have ended",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was seen: a code that stays the same while it stays so, and what to do, in words."""

    code: str
    text: str


def findings(gpu: GpuLive | None, rules: HealthRules) -> tuple[Finding, ...]:
    """Return what speaks against handing out this GPU; `gpu` None: NVML does not list it.

    Codes: `lost`, `mig`, `row-remap-failed`, `row-remap-pending`, `page-retirement-pending`, `recovery-WORD`,
    `ecc-COUNT`.
    """
    if gpu is None or gpu.problem is not None:
        problem = "NVML does not list it" if gpu is None else gpu.problem
        return (Finding("lost", f"{problem}: look at `dmesg | grep -i xid`, then reset it or reboot"),)
    found: list[Finding] = []
    if gpu.mig:
        found.append(Finding("mig", "MIG is on, topod hands out whole GPUs only: nvidia-smi -mig 0"))
    if gpu.remap_failed:
        text = "a memory row could not be remapped: have the card replaced (RMA)"
        found.append(Finding("row-remap-failed", text))
    if gpu.remap_pending:
        found.append(
            Finding("row-remap-pending", "a memory row waits to be remapped: reset the GPU or reboot")
        )
    if gpu.retired_pending:
        text = "a memory page waits to be retired: reset the GPU or reboot"
        found.append(Finding("page-retirement-pending", text))
    if gpu.recovery not in (None, "none"):
        text = RECOVERY.get(str(gpu.recovery), f"the driver asks for a recovery ({gpu.recovery})")
        found.append(Finding(f"recovery-{gpu.recovery}", text))
    errors = gpu.ecc_uncorrected or 0
    # Where the driver says that nothing is to be done, the errors have been dealt with.
    if 0 <= rules.max_uncorrected < errors and gpu.recovery != "none":
        many = "1 uncorrectable memory error" if errors == 1 else f"{errors} uncorrectable memory errors"
        found.append(Finding(f"ecc-{errors}", f"{many} since the driver was loaded: reset the GPU or reboot"))
    return tuple(found)


def slowed(gpu: GpuLive | None) -> str | None:
    """Return why the GPU runs slower than it could, in words; it is handed out all the same."""
    if gpu is None or not gpu.slowdown:
        return None
    heat = "" if gpu.temperature_celsius is None else f" ({gpu.temperature_celsius} °C)"
    return f"slowed down by {gpu.slowdown}{heat}"

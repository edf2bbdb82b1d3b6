"""What the driver's error numbers (Xids) mean for the GPU that had them, after NVIDIA's Xid catalogue.

An Xid is seen once, when it happens. What matters here is whether the GPU may still be given to a job, and
when it may again. Xids that are not in the table are told and hold nothing back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Clears(StrEnum):
    """When a GPU that had a critical Xid is fit again."""

    IDLE = "idle"
    """Once it has answered and been idle for a while: the driver ended what was hit."""
    RESET = "reset"
    """After a reset or a reboot."""
    NEVER = "never"
    """Only when an administrator says so: the card is to be replaced."""


@dataclass(frozen=True, slots=True)
class Xid:
    """One error number. `clears` None: programs cause it, or it only tells; the GPU stays in use."""

    name: str
    clears: Clears | None = None
    advice: str = ""


_RESET: Final = "reset the GPU or reboot"
_WATCH: Final = "look at its neighbours and at `dmesg`"

CATALOGUE: Final[Mapping[int, Xid]] = {
    8: Xid("GPU stopped processing"),
    13: Xid("graphics engine exception: a program's fault"),
    31: Xid("GPU memory page fault: a program's fault"),
    32: Xid("corrupted push buffer"),
    38: Xid("driver firmware error", Clears.IDLE, _WATCH),
    43: Xid("a program's GPU work was stopped"),
    44: Xid("graphics engine fault during a context switch"),
    45: Xid("a program's GPU work was cleaned up"),
    46: Xid("GPU stopped processing", Clears.IDLE, _WATCH),
    48: Xid("double-bit memory error", Clears.RESET, _RESET),
    54: Xid("auxiliary power is not connected", Clears.RESET, "check the power cable"),
    57: Xid("error programming video memory", Clears.RESET, _RESET),
    58: Xid("unstable video memory", Clears.RESET, _RESET),
    61: Xid("microcontroller breakpoint", Clears.RESET, _RESET),
    62: Xid("microcontroller halted", Clears.RESET, _RESET),
    63: Xid("a memory row or page is to be replaced"),
    64: Xid("a memory row or page could not be replaced", Clears.NEVER, "have the card replaced (RMA)"),
    68: Xid("video processor exception: a program's fault"),
    69: Xid("graphics engine class error: a program's fault"),
    74: Xid("NVLink error", Clears.RESET, f"{_RESET}; if it returns, check the bridge or the board"),
    79: Xid("fallen off the bus", Clears.IDLE, "reboot; if it returns, check its seat and power"),
    92: Xid("many single-bit memory errors"),
    94: Xid("contained memory error", Clears.IDLE, "the program that was hit was ended"),
    95: Xid("uncontained memory error", Clears.RESET, _RESET),
    109: Xid("context switch timed out: a program's fault"),
    110: Xid("security fault", Clears.RESET, _RESET),
    119: Xid("GSP firmware does not answer", Clears.RESET, _RESET),
    120: Xid("GSP firmware error", Clears.RESET, _RESET),
    121: Xid("corrected C2C link error"),
    137: Xid("NVLink privilege error: a program's fault"),
    140: Xid("unrecovered memory error", Clears.RESET, _RESET),
    143: Xid("the GPU could not be initialised", Clears.RESET, _RESET),
    154: Xid("the driver's advice for recovery changed"),
    157: Xid("a failing part could not be retired", Clears.NEVER, "have the card replaced (RMA)"),
    158: Xid("fatal GPU timeout", Clears.RESET, _RESET),
}
"""63 alone holds nothing back: NVML tells whether a reset is due (a pending remap), and topod asks it."""

CRITICAL: Final = frozenset(number for number, xid in CATALOGUE.items() if xid.clears is not None)
"""The Xids after which a GPU is not handed out, unless the site names others."""

_OTHER: Final = Xid("not in topod's table", Clears.RESET, "see NVIDIA's Xid catalogue; resume it when fit")
_NAMED: Final = "the site counts it as critical; resume it when fit"


def clears(number: int) -> Clears:
    """Return when a GPU with this critical Xid is fit again; a site may count any Xid as critical."""
    return CATALOGUE.get(number, _OTHER).clears or Clears.RESET


def described(number: int) -> str:
    """Return `Xid 79 (fallen off the bus)`."""
    known = CATALOGUE.get(number)
    return f"Xid {number} ({known.name})" if known is not None else f"Xid {number}"


def advised(number: int) -> str:
    """Return what it is and what to do: `Xid 48 (double-bit memory error): reset the GPU or reboot`."""
    known = CATALOGUE.get(number, _OTHER)
    return f"{described(number)}: {known.advice or _NAMED}"

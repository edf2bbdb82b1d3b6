"""Faults of an emulated host, from a TOML file that is read again whenever it changes.

    hang = false                # true: NVML does not answer
    [gpu.2]                     # by index
    lost = true
    xid = [79]                  # told once, when it appears in the file
    uncorrected = 1             # uncorrectable memory errors
    remap = "pending"           # or "failed"
    recovery = "reset"          # what the driver asks for
    slowdown = "heat"
    used_mib = 2000             # memory in use
    utilisation = 0             # percent; left out: not told
    process = [{pid = 4711, mib = 3200, name = "python", user = "alice"}]

A process that is given no name is looked up on the machine.
"""

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from topod.discovery.gpufacts import MIB, GpuLive, GpuProcess, LiveFacts, XidEvent
from topod.errors import DataError, ProbeError
from topod.model.topology import Topology


class FaultyProcess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One compute process on an emulated GPU."""

    pid: int
    mib: int = 0
    name: str = ""
    user: str = ""


class FaultyGpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is wrong with one emulated GPU."""

    lost: bool = False
    xid: tuple[int, ...] = ()
    uncorrected: int = 0
    remap: Literal["none", "pending", "failed"] = "none"
    recovery: str | None = None
    slowdown: str | None = None
    used_mib: int = 0
    utilisation: int | None = None
    process: tuple[FaultyProcess, ...] = ()


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    hang: bool = False
    gpu: dict[str, FaultyGpu] = {}


class FaultsFile:
    """The faults that a file describes now; one that is not there describes none."""

    def __init__(self, path: Path | None, topology: Topology) -> None:
        """Read the file; None: there are no faults. Raises `DataError` when it cannot be understood."""
        self._path = path
        self._uuids = {str(gpu.index): gpu.uuid for gpu in topology.gpus}
        self._stamp: tuple[int, int, int] | None = None
        self._faults = Faults()
        self._told: dict[str, int] = {}
        self._refresh()

    def live(self) -> LiveFacts:
        """Return a reading of all GPUs. Raises `ProbeError` when the file says `hang`, or is wrong."""
        faults = self._now()
        gpus = (self._gpu(uuid, faults.gpu.get(index, FaultyGpu())) for index, uuid in self._uuids.items())
        return LiveFacts(gpus=tuple(gpus))

    def events(self) -> tuple[XidEvent, ...]:
        """Return the Xids that were added to the file since the last call."""
        found: list[XidEvent] = []
        for index, gpu in self._now().gpu.items():
            told = self._told.get(index, 0)
            found += [XidEvent(uuid=self._uuids[index], xid=xid) for xid in gpu.xid[told:]]
            self._told[index] = len(gpu.xid)
        return tuple(found)

    def named(self, pid: int) -> tuple[str, str] | None:
        """Return the name and the user that the file gives a process; None where it gives none."""
        processes = (process for gpu in self._faults.gpu.values() for process in gpu.process)
        return next(((p.name, p.user) for p in processes if p.pid == pid and p.name), None)

    def _now(self) -> Faults:
        try:
            self._refresh()
        except DataError as error:
            raise ProbeError(f"the emulated faults cannot be read: {error.message}") from None
        if self._faults.hang:
            raise ProbeError("NVML did not answer (emulated)")
        return self._faults

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp == self._stamp:
                return
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            self._stamp, self._faults = None, Faults()
            return
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot be read: {error}", source=str(self._path)) from None
        try:
            faults = msgspec.convert(tomllib.loads(text), Faults)
        except tomllib.TOMLDecodeError as error:
            raise DataError(f"not TOML: {error}", source=str(self._path)) from None
        except msgspec.ValidationError as error:
            raise DataError(str(error).replace("$.", ""), source=str(self._path)) from None
        if unknown := sorted(faults.gpu.keys() - self._uuids.keys()):
            raise DataError(
                f"no GPU {unknown[0]} on this host, which has {len(self._uuids)}", source=str(self._path)
            )
        self._stamp, self._faults = stamp, faults

    def _gpu(self, uuid: str, fault: FaultyGpu) -> GpuLive:
        if fault.lost:
            return GpuLive(uuid=uuid, problem="GPU is lost")
        processes = tuple(GpuProcess(pid=p.pid, memory_bytes=p.mib * MIB) for p in fault.process)
        return GpuLive(
            uuid=uuid,
            memory_used_bytes=(fault.used_mib + sum(process.mib for process in fault.process)) * MIB,
            utilisation_percent=fault.utilisation,
            processes=processes,
            mig=False,
            ecc_uncorrected=fault.uncorrected,
            remap_pending=fault.remap == "pending",
            remap_failed=fault.remap == "failed",
            recovery=fault.recovery,
            slowdown=fault.slowdown,
            idle_bytes=0,
        )

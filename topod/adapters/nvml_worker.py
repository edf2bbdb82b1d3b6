"""The process that calls NVML for the daemon: `python -m topod.adapters.nvml_worker`.

It reads one JSON request a line from standard input and writes one JSON reply a line. A call that hangs in
the driver hangs this process only; `NvmlProbe` then abandons it and starts another. It ends at end of input.
"""

import ctypes
import os
import sys
import threading
from collections import deque
from typing import Any, Literal

import msgspec
import pynvml

from topod.adapters.nvml_readings import handles, read_facts, read_live
from topod.discovery.gpufacts import GpuFacts, LiveFacts, XidEvent

EVENT_WAIT_MS = 500
EVENTS_KEPT = 1000
XID_EVENT = 0x8  # nvmlEventTypeXidCriticalError


Call = Literal["facts", "live", "events"]


class Request(msgspec.Struct, kw_only=True, frozen=True):
    """What the probe asks. `wait_seconds` is for `events`: how long to wait for the first one."""

    id: int
    call: Call
    wait_seconds: float = 0.0


class Reply(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The answer to the request with the same id: an error in words, or the field named like the call."""

    id: int
    error: str | None = None
    ended: bool = False
    """This worker serves no further request."""
    facts: GpuFacts | None = None
    live: LiveFacts | None = None
    events: tuple[XidEvent, ...] | None = None


class EventWatch:
    """Waits for Xid events in a thread of its own, so that none is missed between two calls."""

    def __init__(self) -> None:
        """Register for the Xid events of every GPU that supports them; `problem` says why none can be had."""
        self.problem: str | None = None
        self.broken = False
        """Nothing more will come from this process: a GPU of the set was lost. A fresh one can listen."""
        self._seen: deque[XidEvent] = deque(maxlen=EVENTS_KEPT)
        self._news = threading.Condition()
        self._uuids: dict[int, str] = {}
        try:
            self._set = pynvml.nvmlEventSetCreate()
        except pynvml.NVMLError as error:
            self.problem = f"NVML offers no events: {error}"
            return
        for _, handle, uuid, _ in handles():
            if uuid is None or handle is None:
                continue
            try:
                pynvml.nvmlDeviceRegisterEvents(handle, XID_EVENT, self._set)
                self._uuids[_address(handle)] = uuid
            except pynvml.NVMLError:
                continue  # this GPU has no Xid events
        if not self._uuids:
            self.problem = "no GPU offers Xid events"
            return
        threading.Thread(target=self._watch, name="nvml-events", daemon=True).start()

    def take(self, wait_seconds: float) -> tuple[XidEvent, ...]:
        """Return and forget what came since the last call; waits for a first one if there is none."""
        with self._news:
            self._news.wait_for(lambda: self._seen or self.broken, timeout=wait_seconds)
            taken = tuple(self._seen)
            self._seen.clear()
        return taken

    def _watch(self) -> None:
        while True:
            try:
                event = pynvml.nvmlEventSetWait_v2(self._set, EVENT_WAIT_MS)
            except pynvml.NVMLError_Timeout:
                continue
            except pynvml.NVMLError as error:
                # One lost GPU fails every further wait for all of them.
                with self._news:
                    self.problem, self.broken = f"NVML tells no more events: {error}", True
                    self._news.notify_all()
                return
            if event.eventType & XID_EVENT:
                found = XidEvent(uuid=self._uuids.get(_address(event.device)), xid=event.eventData)
                with self._news:
                    self._seen.append(found)
                    self._news.notify_all()


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def answer(request: Request, watch: EventWatch) -> Reply:
    """Return the reply to one request; an NVML failure becomes its `error`."""
    try:
        match request.call:
            case "facts":
                return Reply(id=request.id, facts=read_facts())
            case "live":
                return Reply(id=request.id, live=read_live())
            case "events":
                events = watch.take(0.0 if watch.problem else request.wait_seconds)
                if watch.problem is not None and not events:
                    return Reply(id=request.id, error=watch.problem, ended=watch.broken)
                return Reply(id=request.id, events=events)
    except pynvml.NVMLError as error:
        return Reply(id=request.id, error=f"NVML failed: {error}")
    except Exception as error:  # noqa: BLE001 - in words to the daemon, else it is lost with this process
        return Reply(id=request.id, error=f"the NVML worker failed: {type(error).__name__}: {error}")


def start_nvml() -> str | None:
    """Load and initialise NVML; return why it cannot be used, or None."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return "NVML library not found (libnvidia-ml.so.1 comes with the NVIDIA driver)"
    except pynvml.NVMLError_DriverNotLoaded:
        return "the NVIDIA driver is not loaded"
    except pynvml.NVMLError as error:
        return f"NVML does not start: {error}"
    return None


def main() -> None:
    """Serve requests until the input ends. Where NVML does not start, say so to the first request and end."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a driver library prints must not come between the replies
    decoder = msgspec.json.Decoder(Request)
    problem, watch = None, None
    for line in sys.stdin.buffer:
        request = decoder.decode(line)
        if watch is None:
            problem = start_nvml()
            if problem is not None:
                replies.write(msgspec.json.encode(Reply(id=request.id, error=problem, ended=True)) + b"\n")
                return  # a fresh process loads the library anew: a driver may have been installed meanwhile
            watch = EventWatch()
        replies.write(msgspec.json.encode(answer(request, watch)) + b"\n")


if __name__ == "__main__":
    main()

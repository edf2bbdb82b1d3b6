"""A wire between two TAP devices on which every frame takes its time: kernels without netem cannot delay by themselves."""

import contextlib
import fcntl
import os
import select
import struct
import threading
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 1 << 16


def open_tap(name: str) -> int:
    """Return a new TAP device of that name in the network namespace of this thread; it is gone when closed."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    except OSError:
        os.close(device)
        raise
    return device


class SlowWire:
    """Carries frames between two devices, which it closes in the end, in order, each so many seconds later."""

    def __init__(self, first: int, second: int, delay: float) -> None:
        self._other = {first: second, second: first}
        self._delay = delay
        self._wake, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="slow wire", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take the wire away; what is on it is lost."""
        os.close(self._stop)
        self._thread.join()
        for device in (*self._other, self._wake):
            os.close(device)

    def _carry(self) -> None:
        on_it: deque[tuple[float, int, bytes]] = deque()
        while True:
            left = max(0.0, on_it[0][0] - time.monotonic()) if on_it else None
            ready, _, _ = select.select([*self._other, self._wake], [], [], left)
            if self._wake in ready:
                return
            for device in ready:
                with contextlib.suppress(OSError):  # it is down
                    frame = os.read(device, FRAME_BYTES)
                    on_it.append((time.monotonic() + self._delay, self._other[device], frame))
            while on_it and on_it[0][0] <= time.monotonic():
                _, device, frame = on_it.popleft()
                with contextlib.suppress(OSError):  # no room: lost, as on any wire
                    os.write(device, frame)

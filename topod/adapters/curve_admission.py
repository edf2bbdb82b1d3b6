"""libzmq's question who may connect (ZAP, https://rfc.zeromq.org/spec/27), and what is noted of refusals."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import zmq
import zmq.asyncio
from zmq.utils import z85

from topod.adapters.authorized import Entry
from topod.adapters.zmq_server import ZAP_ENDPOINT
from topod.errors import DaemonUnavailableError

KEY_PROPERTY: Final = "Topod-Key"
"""With each message: the public key that its sender proved to have. Like `User-Id` it is there before what
the peer says of itself, and what is there first stays."""
KEY_BYTES: Final = 32
AGAIN_SECONDS: Final = 60.0

log = logging.getLogger(__name__)


class Notes:
    """Counts refusals by reason, and writes one line of the log for each reason and minute."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._told: dict[str, tuple[float, int]] = {}

    def refused(self, reason: str, detail: str) -> None:
        """Note one refusal."""
        self._counts[reason] += 1
        now = time.monotonic()
        when, before = self._told.get(reason, (-AGAIN_SECONDS, 0))
        if now - when >= AGAIN_SECONDS:
            more = self._counts[reason] - before - 1
            text = f"{detail} (and {more} more since the last such line)" if more else detail
            self._told[reason] = (now, self._counts[reason])
            log.warning("port.refused", extra={"event": reason, "peer": text})


class Admission:
    """Answers libzmq's questions by the file of authorised keys."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        domain: bytes,
        admit: Callable[[str, str], Entry | None],
    ) -> None:
        """`admit` returns who has a public key, given an address; `DaemonUnavailableError`: not now."""
        self._wire = zmq.asyncio.Socket(context, zmq.REP)
        self._domain = domain
        self._admit = admit

    def bind(self) -> None:
        """Be there to be asked."""
        self._wire.set(zmq.LINGER, 0)
        self._wire.bind(ZAP_ENDPOINT)

    async def serve(self) -> None:
        """Answer, for ever; whatever fails lets nobody in."""
        while True:
            frames = await self._wire.recv_multipart()
            try:
                reply = self._judged(frames)
            except Exception:
                log.exception("port.admission")
                reply = [b"500", b"cannot be answered", b"", b""]
            ident = frames[1] if len(frames) > 1 else b""
            await self._wire.send_multipart([b"1.0", ident, *reply])

    def close(self) -> None:
        """Be there no more: nobody is let in from now on."""
        self._wire.close()

    def _judged(self, frames: list[bytes]) -> list[bytes]:
        """Return status, text, user and properties for one question."""
        refused = [b"400", b"not listed", b"", b""]
        if len(frames) != 7 or frames[0] != b"1.0" or frames[2] != self._domain:
            return refused
        address, mechanism, key = frames[3].decode(errors="replace"), frames[5], frames[6]
        if mechanism != b"CURVE" or len(key) != KEY_BYTES:
            return refused
        public = z85.encode(key)
        try:
            entry = self._admit(public.decode(), address)
        except DaemonUnavailableError as full:
            return [b"300", full.message.encode(), b"", b""]
        if entry is None:
            return refused
        return [b"200", b"OK", entry.who.encode(), _property(KEY_PROPERTY.encode(), public)]


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value

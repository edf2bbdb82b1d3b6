"""The metrics of a daemon as one of its parts: nothing at all where they are off."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from topod.adapters.metrics_port import MetricsPort
from topod.adapters.peers import Peer, RemotePeer

if TYPE_CHECKING:
    # The library takes a tenth of a second to load, which who does without metrics need not pay.
    from topod.shell.metrics.instruments import Answer, Instruments

S = TypeVar("S")
Asking = Peer | RemotePeer | None


class Told(Protocol[S]):
    """What a daemon tells."""

    @property
    def instruments(self) -> "Instruments":
        """What it counts."""
        ...

    def look(self) -> S:
        """Return what is to be told, at once."""
        ...

    def render(self, look: S) -> bytes:
        """Return the text for Prometheus."""
        ...


class MetricsPart:
    """The port and what is behind it. Used from the event loop only."""

    def __init__(self, place: tuple[str, int] | None, make: Callable[[], Told[S]]) -> None:
        """`place` None: off, and `make` is not called."""
        self._port: MetricsPort[S] | None = None
        self._instruments: Instruments | None = None
        if place is not None:
            told = make()
            self._instruments = told.instruments
            self._port = MetricsPort(place, told.look, told.render)

    def counted(self, answer: "Answer[Asking]") -> "Answer[Asking]":
        """Return the function that answers requests, with its outcomes counted."""
        return answer if self._instruments is None else self._instruments.counted(answer)

    def start(self) -> str:
        """Listen and answer; return where, empty: nowhere. Raises `TopodError`."""
        if self._port is None:
            return ""
        self._port.bind()
        self._port.start()
        return self._port.url

    def stop(self) -> None:
        """Answer nobody any more."""
        if self._port is not None:
            self._port.stop()

"""Where the metrics of a daemon are had, by a flag or the configuration: off unless one of them says so."""

from collections.abc import Iterator

from topod.adapters.metrics_port import parse_place
from topod.errors import UsageError

FLAG = "metrics for Prometheus, off by default; without an address on loopback"
METAVAR = "[ADDR:]PORT"


def place_of(flag: str | None, section: str) -> tuple[str, int] | None:
    """Return address and port; None: off. A flag `off` wins over the configuration. Raises `UsageError`."""
    text = section if flag is None else flag
    if text in ("", "off"):
        return None
    try:
        return parse_place(text)
    except ValueError as error:
        raise UsageError(f"--metrics: {error}") from None


def check_place(key: str, text: str) -> Iterator[str]:
    """Say what is wrong with a place in the configuration; empty: off."""
    if text:
        try:
            parse_place(text)
        except ValueError as error:
            yield f"{key}: {error}"

"""How far a host's clock may be from its coordinator's before people are told."""

from typing import Final

TOLERATED_SECONDS: Final = 2.0


def clocks_differ(ahead: float) -> str:
    """Return the words for a coordinator's clock that is that many seconds ahead of ours."""
    return f"the clock is {abs(ahead):.1f} s {'behind' if ahead > 0 else 'ahead of'} the coordinator's"

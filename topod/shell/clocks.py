"""How far a host's clock may be from its coordinator's before people are told."""

from typing import Final

from topod.shell.health import Ahead, Health

TOLERATED_SECONDS: Final = 2.0
WITHIN_SECONDS: Final = 1.0
"""Orders later than this after the report which they answer say too little of the coordinator's clock."""


def clocks_differ(ahead: float) -> str:
    """Return the words for a coordinator's clock that is that many seconds ahead of ours."""
    return f"the clock is {abs(ahead):.1f} s {'behind' if ahead > 0 else 'ahead of'} the coordinator's"


def compare_clocks(health: Health, theirs: float, ours: float, spent: float) -> None:
    """Note how the coordinator's clock stands to ours; it was read within the last `spent` seconds."""
    if not theirs or not 0 <= spent <= WITHIN_SECONDS:
        return
    within = spent / 2
    ahead = theirs - (ours - within)
    health.coordinator_ahead = Ahead(ahead, within)
    health.tell("clock", clocks_differ(ahead) if abs(ahead) - within > TOLERATED_SECONDS else "")

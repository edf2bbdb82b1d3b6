"""Which of many values are new, changed or gone since a reader last asked.

Values are compared by identity: whoever owns the state replaces what it changes. So a look at ten thousand
that did not change takes less than a millisecond, and nobody has to say what changed.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Generic, TypeVar

GONE_MAX: Final = 10_000
"""Keys that went away are remembered up to this many; a reader who missed more is told all anew."""

K = TypeVar("K")
V = TypeVar("V")


class ChangeLog(Generic[K, V]):
    """The values of one mapping, each with the number of the change that brought it."""

    def __init__(self) -> None:
        self._seen: Mapping[K, V] = {}
        # In the order of their changes, the latest last.
        self._changed: dict[K, int] = {}
        self._gone: dict[K, int] = {}
        self._forgotten = 0

    def look(self, current: Mapping[K, V], number: int) -> bool:
        """Note what differs from the last look under a `number` that rises; return whether anything does."""
        if current is self._seen:
            return False
        before, self._seen = self._seen, current
        fresh = [key for key, value in current.items() if before.get(key) is not value]
        left = [key for key in before if key not in current]
        self.touch(fresh, number)
        for key in left:
            self._changed.pop(key, None)
            self._gone[key] = number
        while len(self._gone) > GONE_MAX:
            oldest = next(iter(self._gone))
            self._forgotten = max(self._forgotten, self._gone.pop(oldest))
        return bool(fresh or left)

    def touch(self, keys: Iterable[K], number: int) -> None:
        """Note values as changed that are there: what is told of them depends on something else as well."""
        for key in keys:
            self._changed.pop(key, None)
            self._gone.pop(key, None)
            self._changed[key] = number

    def since(self, number: int) -> list[K]:
        """Return the keys that are there and changed after that number, the earliest change first."""
        return _after(self._changed, number)

    def gone(self, number: int) -> list[K]:
        """Return the keys that went away after that number."""
        return _after(self._gone, number)

    def remembers(self, number: int) -> bool:
        """Say whether all that went away after that number is known."""
        return number >= self._forgotten


def _after(changes: dict[K, int], number: int) -> list[K]:
    found = []
    for key in reversed(changes):
        if changes[key] <= number:
            break
        found.append(key)
    found.reverse()
    return found

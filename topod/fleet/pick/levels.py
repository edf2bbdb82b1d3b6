"""Cost key 1 of plans on different hosts in numbers: victims by priority level, the highest level first.

A level has twelve bits: a GPU set touches at most 20 holders, of which each counts `MOST_EACH` containers at
most, and a bound counts at most 43 more. Four levels make a word, which a float holds exactly; most fleets
need one word.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from topod.fleet.pick.rows import FloatTable, Priorities
from topod.flextopo.affinity import IntTable

BITS: Final = 12
MOST_EXTRA: Final = 43
"""So many further victims are counted at most; with 20 they fit into the bits of a level."""
MOST_EACH: Final = 200
"""A job over more hosts counts as one over so many: that promises no less."""
_PER_WORD: Final = 4
HEAD: Final = 1 << BITS
NEVER: Final = 1 << 60
"""The head of a host that has no plan."""


class Levels:
    """The priorities of a fleet below that of a request. A level's rank counts from 0, the lowest."""

    __slots__ = ("count", "rank_of", "values", "weights", "words")

    def __init__(self, priorities: Priorities, below: int) -> None:
        known = np.array(priorities.values or [below], dtype=np.int64)
        self.values: list[int] = sorted(value for value in priorities.values if value < below)
        self.count = len(self.values)
        self.rank_of: IntTable = np.searchsorted(np.array(self.values, dtype=np.int64), known)
        """By number of a priority; `count` for those that are not below."""
        self.words = -(-self.count // _PER_WORD)
        self.weights: FloatTable = np.zeros((self.count + 1, self.words))
        """What a victim of each rank adds to each word; nothing for the rank `count`."""
        for level in range(self.count):
            word, place = divmod(self.count - 1 - level, _PER_WORD)
            self.weights[level, word] = 1 << BITS * (_PER_WORD - 1 - place)

    def heads(self, words: Sequence[FloatTable], hosts: int) -> IntTable:
        """Return the highest level that has victims, and how many, in one number: 0 for no victims."""
        heads = np.zeros(hosts, dtype=np.int64)
        for number, word in enumerate(words):
            rows = ((heads == 0) & (word > 0)).nonzero()[0]
            bits = word[rows].astype(np.int64)
            digit = (np.frexp(word[rows])[1].astype(np.int64) - 1) // BITS
            rank = self.count - 1 - (number * _PER_WORD + _PER_WORD - 1 - digit)
            heads[rows] = head(rank, bits >> BITS * digit)
        return heads

    def victims(self, words: Sequence[float]) -> tuple[tuple[int, int], ...]:
        """Return what the words of one host say: (priority, victims), the highest priority first."""
        found = []
        for number, word in enumerate(words):
            bits = int(word)
            for place in range(_PER_WORD):
                count = bits >> BITS * (_PER_WORD - 1 - place) & HEAD - 1
                if count:
                    found.append((self.values[self.count - 1 - number * _PER_WORD - place], count))
        return tuple(found)

    def head_of(self, victims: tuple[tuple[int, int], ...]) -> int:
        """Return the head of a plan with these victims; as many as do not fit count as those that do."""
        if not victims:
            return 0
        priority, count = victims[0]
        return (self.values.index(priority) + 1) * HEAD + min(count, HEAD - 1)


def head(rank: IntTable, count: IntTable) -> IntTable:
    """Return the heads for victims of these ranks and numbers."""
    heads: IntTable = (rank + 1) * HEAD + count
    return heads

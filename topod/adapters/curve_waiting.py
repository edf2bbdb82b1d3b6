"""Who is connected to a coordinator's port and has not said anything yet, and who of them must go for others.

libzmq says which address was let in, not which of its connections. So the count is kept by address: what is
beyond the number let in counts as half-open. Of too many the oldest of the address with the most goes: a
machine that only opens connections pushes out its own, and hosts that all come back at once all get in.
"""

from collections import Counter


class Waiting:
    """Connections by descriptor, each with its address and the moment of its accept (seconds)."""

    def __init__(self, most: int, of_address: int = 1 << 30) -> None:
        """`most`: how many may be half-open, and `of_address` from one address."""
        self._most = most
        self._most_of_address = of_address
        self._all: dict[int, tuple[float, str]] = {}
        self._of: dict[str, dict[int, None]] = {}
        self._let_in: Counter[str] = Counter()
        self._latest = ""
        """The address of the last accept."""

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, fd: int) -> bool:
        return fd in self._all

    @property
    def half_open(self) -> int:
        """How many were not let in yet."""
        return sum(map(self._half_open_of, self._of))

    def add(self, fd: int, address: str, now: float) -> None:
        """Take in a connection that was accepted."""
        self.remove(fd)
        self._all[fd] = (now, address)
        self._latest = address
        self._of.setdefault(address, {})[fd] = None

    def let_in(self, address: str) -> None:
        """Note that one connection of an address proved to have a key that is listed."""
        if self._let_in[address] < len(self._of.get(address, ())):
            self._let_in[address] += 1

    def spoke(self, fd: int) -> None:
        """Forget a connection from which a message came: it had been let in."""
        found = self._all.get(fd)
        self.remove(fd)
        if found is not None and self._let_in[found[1]]:
            self._let_in[found[1]] -= 1
            self._tidy(found[1])

    def remove(self, fd: int) -> None:
        """Forget a connection."""
        found = self._all.pop(fd, None)
        if found is not None:
            address = found[1]
            del self._of[address][fd]
            self._let_in[address] = min(self._let_in[address], len(self._of[address]))
            self._tidy(address)

    def too_many(self) -> int | None:
        """Return the connection that must go; None: there is room."""
        if self._latest in self._of and self._half_open_of(self._latest) > self._most_of_address:
            return next(iter(self._of[self._latest]))
        if len(self._all) <= self._most or self.half_open <= self._most:
            return None
        # Ties by the order of arrival: the address that has waited longest.
        worst = max(self._of, key=self._half_open_of)
        return next(iter(self._of[worst]))

    def accepted_before(self, moment: float) -> list[int]:
        """Return the connections accepted before a moment, oldest first."""
        return [fd for fd, (since, _) in self._all.items() if since < moment]

    def _half_open_of(self, address: str) -> int:
        return len(self._of[address]) - self._let_in[address]

    def _tidy(self, address: str) -> None:
        if not self._of.get(address):
            self._of.pop(address, None)
        if not self._let_in[address]:
            del self._let_in[address]

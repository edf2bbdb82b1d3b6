"""Takes the lead of a fleet, keeps it, and notices at once when it is lost."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeVar

from topod.errors import StoreError
from topod.shell.health import Health
from topod.shell.logs import Key

LOOK_SECONDS: Final = 0.25
"""Between two looks of who stands by, and of the leader at its own lease."""
AGAIN_SECONDS: Final = 1.0
"""After a failure."""
HEARS_SECONDS: Final = 4.0
"""Who stands by and heard a host in so long hears hosts."""
DEAF_SECONDS: Final = 8.0
"""A leader that heard none for so long gives way to one that does; hosts need less to find a new leader."""
ASK_SECONDS: Final = 2.0

log = logging.getLogger(__name__)
T = TypeVar("T")


class Lead(Protocol):
    """One candidate for the lead; `EtcdLead` is one. `leads` answers at once, the others may block."""

    leader: str
    """The name of who led when it was looked last; empty: nobody."""

    def leads(self) -> bool:
        """Say whether this candidate is the leader, surely."""
        ...

    def stand(self) -> bool:
        """Take the lead where nobody has it; return whether it is ours now. Raises `StoreError`."""
        ...

    def renew(self) -> bool:
        """Have the lead last longer; False: it is lost, or was not confirmed just now."""
        ...

    def resign(self) -> None:
        """Lead no more, and let another one at once where that can be told."""
        ...

    def tell_heard(self) -> None:
        """Tell the leader, for some seconds, that hosts are heard here. Raises `StoreError`."""
        ...

    def others_hear(self) -> bool:
        """Say whether hosts are heard by who stands by. Raises `StoreError`."""
        ...


class Alone:
    """The lead of the only coordinator that there is."""

    leader: str = ""

    def leads(self) -> bool:
        """Say yes."""
        return True

    stand = renew = leads

    def resign(self) -> None:
        """Do nothing: whoever comes next finds the state folder."""

    tell_heard = resign

    def others_hear(self) -> bool:
        """Say no: there are no others."""
        return False


class Election:
    """The part of one candidate in it. Used from the event loop only."""

    def __init__(
        self, lead: Lead, health: Health, *, lease_seconds: float, unheard: Callable[[], float]
    ) -> None:
        """`unheard` says for how long no host was heard (seconds)."""
        self._lead = lead
        self._unheard = unheard
        self._ask_at = 0.0
        self._health = health
        self._every = lease_seconds / 4
        self._unanswered: tuple[float, str] | None = None
        """Since when it cannot be known who leads (event loop's clock), and why."""
        # Of its own: a renewal waits for no commit.
        self._thread = ThreadPoolExecutor(1, "lead")

    @property
    def trouble(self) -> str:
        """Why it cannot be known who leads, and for how long so; empty: it can."""
        if self._unanswered is None:
            return ""
        since, why = self._unanswered
        return f"{why}, for {asyncio.get_running_loop().time() - since:.0f} s now"

    async def won(self, led_by: Callable[[str], None]) -> None:
        """Return when this coordinator leads; until then `led_by` is told who does, "" for nobody."""
        told = None
        while not await self._stands():
            if self._lead.leader != told:
                told = self._lead.leader
                led_by(told)
                log.info("coordinator.stands-by", extra={Key.LEADER: told or "nobody"})
            if self._unheard() < HEARS_SECONDS and self._due():
                with contextlib.suppress(StoreError):
                    await self._in_thread(self._lead.tell_heard)
            await asyncio.sleep(LOOK_SECONDS)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Have the lead last, as long as etcd goes along."""
        renewal = asyncio.create_task(self._renew(), name="lease of the lead")
        try:
            yield
        finally:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)

    async def lost(self) -> None:
        """Return when this coordinator leads no more, or should not, since hosts reach others only."""
        while self._lead.leads():
            await asyncio.sleep(LOOK_SECONDS)
            if self._unheard() > DEAF_SECONDS and self._due() and await self._others_hear():
                log.warning("coordinator.unheard", extra={Key.TEXT: "hosts reach other coordinators only"})
                return

    async def _others_hear(self) -> bool:
        with contextlib.suppress(StoreError):
            return await self._in_thread(self._lead.others_hear)
        return False

    def _due(self) -> bool:
        """Say, every two seconds, that etcd may be asked about who hears hosts."""
        now = asyncio.get_running_loop().time()
        if now < self._ask_at:
            return False
        self._ask_at = now + ASK_SECONDS
        return True

    async def resign(self) -> None:
        """Lead no more."""
        await self._in_thread(self._lead.resign)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _stands(self) -> bool:
        asked_at = asyncio.get_running_loop().time()
        try:
            leads = await self._in_thread(self._lead.stand)
        except StoreError as error:
            self._health.trouble("store", error.message)
            since = asked_at if self._unanswered is None else self._unanswered[0]
            self._unanswered = since, error.message.partition(";")[0]
            await asyncio.sleep(AGAIN_SECONDS)
            return False
        self._health.well("store")
        self._unanswered = None
        return leads

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self._in_thread(self._lead.renew)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

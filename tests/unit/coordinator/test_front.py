"""What a coordinator that does not lead answers."""

import asyncio

import pytest

from topod.adapters.etcd_client import UnansweredError
from topod.coordinator import election
from topod.coordinator.election import Alone, Election
from topod.coordinator.front import Front
from topod.errors import MemoryAwayError, NotLeaderError
from topod.protocol.replies import Configuration
from topod.protocol.requests import GetConfig, ListJobs
from topod.shell.health import Health

SECONDS = 60.0


class Follower(Alone):
    """Stands by for another one, as long as etcd answers."""

    leader = "tcp://a:1"

    def __init__(self) -> None:
        self.etcd_answers = True

    def leads(self) -> bool:
        return False

    def stand(self) -> bool:
        if not self.etcd_answers:
            raise UnansweredError("etcd does not answer; http://e:1: Connection refused")
        return False


async def configuration(*_: object) -> Configuration:
    return Configuration()


def test_who_led_last_is_not_named_while_etcd_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(election, "AGAIN_SECONDS", 0.0)

    async def scene() -> None:
        async def until(troubled: bool) -> None:
            while bool(chosen.trouble) != troubled:  # noqa: ASYNC110 - a value that no event stands for
                await asyncio.sleep(0.001)

        lead = Follower()
        chosen = Election(lead, Health(), lease_seconds=5.0, unheard=lambda: 99.0)
        front = Front(
            lead,
            lambda: pytest.fail("no host spoke"),
            welcome=pytest.fail,
            trouble=lambda: chosen.trouble,
            configured=configuration,
        )
        standing = asyncio.create_task(chosen.won(lambda _: None))
        async with asyncio.timeout(SECONDS):
            lead.etcd_answers = False
            await until(troubled=True)
            with pytest.raises(MemoryAwayError, match=r"etcd does not answer, for \d+ s now") as away:
                await front.answer(ListJobs(), None)
            # Whoever leads, and whether anybody does.
            assert await front.answer(GetConfig(), None) == Configuration()
            lead.etcd_answers = True
            await until(troubled=False)
            with pytest.raises(NotLeaderError, match="tcp://a:1 leads the fleet just now"):
                await front.answer(ListJobs(), None)
        standing.cancel()
        chosen.close()
        assert "tcp://a:1" not in away.value.message
        assert "topoctl on each host works" in (away.value.hint or "")

    asyncio.run(scene())

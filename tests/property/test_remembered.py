"""What the planner remembers is what it would say again, to the letter, while jobs come, go and work on."""

import random
from dataclasses import replace

from tests.oracles.random_hosts import random_host, random_occupancy, random_request, with_rules
from topod.flextopo.tables import TopologyTables
from topod.model.occupancy import Occupancy
from topod.model.plan import Refusal
from topod.preemption.remembered import never, plan_again
from topod.preemption.search import plan


def changed(rng: random.Random, occupancy: Occupancy) -> Occupancy:
    """Return the same a moment later: the jobs have worked on, and one of them may have lost its protection."""
    holders = [replace(holder, work=holder.work + rng.randrange(9000)) for holder in occupancy.holders]
    if holders and rng.random() < 0.3:
        at = rng.randrange(len(holders))
        holders[at] = replace(
            holders[at], evictable=not holders[at].evictable, protection="", work=holders[at].work
        )
    if holders and rng.random() < 0.2:
        del holders[rng.randrange(len(holders))]
    return replace(occupancy, holders=tuple(holders), may_evict=rng.random() < 0.9)


def ask(seed: int) -> int:
    """Compare every answer about one host; returns how many were remembered."""
    rng = random.Random(seed)
    topology = random_host(rng)
    kept, plain = TopologyTables(topology), TopologyTables(topology)
    requests = [random_request(rng, topology) for _ in range(6)]
    occupancy = random_occupancy(rng, topology)
    if seed % 3 == 0:
        occupancy = with_rules(rng, occupancy)
    given: list[Refusal] = []
    again = 0
    for _ in range(6):
        for request in requests:
            answer = plan_again(kept, occupancy, request)
            assert answer == plan(plain, occupancy, request)
            if isinstance(answer, Refusal):
                again += any(answer is one for one in given)
                given.append(answer)
            empty = plan(plain, Occupancy(), request)
            assert never(kept, request) == (empty if isinstance(empty, Refusal) else None)
        occupancy = changed(rng, occupancy)
    return again


def test_an_answer_that_is_remembered_is_the_answer_that_would_be_given() -> None:
    assert sum(map(ask, range(150))) > 100

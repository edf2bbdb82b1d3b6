"""The planner's reference: tries every set of victims with every set of GPUs. Slow and simple on purpose.

It shares nothing with the planner but the model's values.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product

from topod.model.links import LinkClass
from topod.model.occupancy import Occupancy
from topod.model.request import ResourceRequest
from topod.model.topology import Topology

LADDER = ["nvlink-all", "nvlink", "pcie", "numa", "socket", "any"]
CPU_LADDER = ["numa", "socket", "any"]
SCORE = {"SYS": 10, "NODE": 20, "PHB": 30, "PXB": 40, "PIX": 50}


@dataclass(frozen=True)
class Best:
    key1: tuple[tuple[int, int], ...]
    steps: tuple[int, int]
    stranded: int
    work: int
    links: tuple[int, int]
    left: tuple[tuple[int, ...], ...]
    gpus: tuple[int, ...]
    victims: tuple[str, ...]


class Host:
    """Answers questions about GPU sets of one topology, each remembered."""

    def __init__(self, topology: Topology) -> None:
        self.t = topology
        self.n = len(topology.gpus)
        self.cpus = set(topology.cpus) or {c for gpu in topology.gpus for c in gpu.cpus or ()}
        self.domain = self._domains()
        self.socket = [self._socket(i) for i in range(self.n)]
        self.satisfies = lru_cache(maxsize=None)(self._satisfies)
        self.profile = lru_cache(maxsize=None)(self._profile)

    def _node_cpus(self, i: int) -> frozenset[int]:
        wanted = self.t.gpus[i].numa_node
        return frozenset(c for node in self.t.numa_nodes if node.id == wanted for c in node.cpus) & self.cpus

    def _domains(self) -> list[frozenset[int] | None]:
        nodes = [self._node_cpus(i) for i in range(self.n)]
        own = [
            frozenset() if nodes[i] else frozenset(self.t.gpus[i].cpus or ()) & self.cpus
            for i in range(self.n)
        ]
        out: list[frozenset[int] | None] = []
        for i in range(self.n):
            mine = nodes[i] or own[i]
            clean = all(mine == other or not mine & other for other in nodes + own)
            out.append(mine if mine and (nodes[i] or clean) else None)
        return out

    def _socket(self, i: int) -> frozenset[int] | None:
        node = {c for node in self.t.numa_nodes if node.id == self.t.gpus[i].numa_node for c in node.cpus}
        for cpus in (node, set(self.t.gpus[i].cpus or ())):
            for socket in self.t.sockets:
                if cpus and cpus <= set(socket.cpus):
                    return frozenset(socket.cpus)
        return None

    def kind(self, a: int, b: int) -> LinkClass:
        link = self.t.links[a][b]
        assert link is not None
        return link.kind

    def score(self, a: int, b: int) -> int:
        link = self.t.links[a][b]
        assert link is not None
        return 100 * link.lanes if link.lanes else SCORE[link.kind.name]

    def _ring(self, s: tuple[int, ...]) -> bool:
        def linked(a: int, b: int) -> bool:
            return self.kind(a, b) is LinkClass.NVLINK

        def walk(at: int, rest: frozenset[int]) -> bool:
            if not rest:
                return linked(at, s[0])
            return any(linked(at, nxt) and walk(nxt, rest - {nxt}) for nxt in rest)

        return len(s) < 2 or walk(s[0], frozenset(s[1:]))

    def _satisfies(self, s: tuple[int, ...], level: str) -> bool:  # noqa: PLR0911 - one return per level reads best
        pairs = [self.kind(a, b) for a, b in combinations(s, 2)]
        if level == "any" or len(s) < 2:
            return True
        if level == "nvlink-all":
            return all(kind is LinkClass.NVLINK for kind in pairs)
        if level == "nvlink":
            return self._ring(s)
        if level == "pcie":
            return all(kind in (LinkClass.PXB, LinkClass.PIX, LinkClass.NVLINK) for kind in pairs)
        if level == "numa":
            nodes = {self.t.gpus[i].numa_node for i in s}
            if None not in nodes:
                return len(nodes) == 1
            return LinkClass.SYS not in pairs
        assert level == "socket"
        sockets = {self.socket[i] for i in s}
        if None not in sockets:
            return len(sockets) == 1
        return LinkClass.SYS not in pairs

    def missed(self, s: tuple[int, ...], level: str) -> int:
        down = LADDER[LADDER.index(level) :]
        return next(i for i, name in enumerate(down) if self.satisfies(s, name))

    def _profile(self, rest: tuple[int, ...], relation: str) -> tuple[int, ...]:
        sizes: list[int] = []
        left = rest
        while left:
            part = next(
                s
                for size in range(len(left), 0, -1)
                for s in combinations(left, size)
                if self.satisfies(s, relation)
            )
            sizes.append(len(part))
            left = tuple(i for i in left if i not in part)
        return tuple(sizes)

    def share(self, i: int) -> int:
        domain = self.domain[i]
        if domain is None:
            return 0
        each = len(domain) // self.domain.count(domain)
        threads = max([len(set(core.cpus) & domain) for core in self.t.cores], default=1) or 1
        return each // threads * threads if each >= threads else each

    def cpus_fit(  # noqa: C901 - the contract's cases one after the other, on purpose without helpers
        self, s: tuple[int, ...], pool: set[int], request: ResourceRequest, level: str
    ) -> bool:
        shares: dict[frozenset[int], int] = defaultdict(int)
        for i in s:
            domain = self.domain[i]
            if domain is not None:
                shares[domain] += self.share(i)
        count = sum(shares.values()) if request.cpus == "auto" else int(request.cpus)
        if count == 0:
            return True
        if not s or level == "any":
            return len(pool) >= count
        if level == "socket":
            area: set[int] = set()
            for i in s:
                area |= (self.socket[i] or frozenset()) & self.cpus or self.domain[i] or self.cpus
            return len(pool & area) >= count
        if request.cpus == "auto":
            return all(len(pool & domain) >= share for domain, share in shares.items())
        groups: dict[frozenset[int] | None, int] = defaultdict(int)
        for i in s:
            groups[self.domain[i]] += 1
        wanted = {domain: math.ceil(count * k / len(s)) for domain, k in groups.items()}
        for less in product((0, 1), repeat=len(wanted)):
            given = {domain: want - d for (domain, want), d in zip(wanted.items(), less, strict=True)}
            there = all(domain is None or len(pool & domain) >= x for domain, x in given.items())
            if there and sum(given.values()) == count and len(pool) >= count:
                return True
        return False


def best(  # noqa: C901, PLR0912 - one plain nest of loops is easier to trust than helpers
    host: Host, occupancy: Occupancy, request: ResourceRequest
) -> Best | None:
    """Return the plan of least cost, or None where no plan is feasible."""
    if occupancy.room is not None and request.gpus > occupancy.room.gpus:
        return None
    blocked = {i for i in range(host.n) if any(block.gpus >> i & 1 for block in occupancy.blocks)}
    no_cpus = {c for block in occupancy.blocks for c in block.cpus}
    holders = occupancy.holders
    eligible = [i for i, h in enumerate(holders) if h.evictable and h.priority < request.priority]
    prios = sorted({h.priority for h in holders}, reverse=True)
    by_key1: dict[tuple[int, ...], list[tuple[int, ...]]] = defaultdict(list)
    for size in range(len(eligible) + 1):
        for v in combinations(eligible, size):
            if v and not occupancy.may_evict:
                continue
            counted = [name for i in v for name in holders[i].budgets]
            if any(counted.count(budget.name) > budget.stops for budget in occupancy.budgets):
                continue
            by_key1[
                tuple(sum(holders[i].stops for i in v if holders[i].priority == p) for p in prios)
            ].append(v)
    held = {i for h in holders for i in range(host.n) if h.gpus >> i & 1}
    spoils = [i for i in range(host.n) if occupancy.spoils >> i & 1 and i not in held]
    guaranteed = request.policy.value == "guaranteed"
    cpu_levels = CPU_LADDER[CPU_LADDER.index(request.cpu_affinity.value) :]
    if guaranteed or request.gpus == 0:
        cpu_levels = cpu_levels[:1]
    for key1 in sorted(by_key1):  # no plan of a later group can be cheaper
        found: tuple[tuple[object, ...], Best] | None = None
        for v in by_key1[key1]:
            kept = [h for i, h in enumerate(holders) if i not in v]
            free = [i for i in range(host.n) if i not in blocked and not any(h.gpus >> i & 1 for h in kept)]
            lost = [i for i in range(host.n) if any(holders[j].gpus >> i & 1 for j in v)]
            lost += [i for i in spoils if i not in lost]
            elsewhere = sum(holders[i].elsewhere for i in v)
            pool = host.cpus - no_cpus - {c for h in kept for c in h.cpus}
            work = sum(holders[i].work for i in v)
            for s in combinations(free, request.gpus):
                steps = host.missed(s, request.affinity.value)
                if guaranteed and steps:
                    continue
                cpu_steps = next(
                    (i for i, lv in enumerate(cpu_levels) if host.cpus_fit(s, pool, request, lv)), None
                )
                if cpu_steps is None:
                    continue
                stranded = elsewhere + sum(i not in s for i in lost)
                if found is not None and (steps, cpu_steps, stranded, work) > found[0][:4]:
                    continue
                scores = [host.score(a, b) for a, b in combinations(s, 2)]
                links = (min(scores, default=0), sum(scores))
                rest = tuple(i for i in free if i not in s)
                left: tuple[tuple[int, ...], ...] = ((), (), ())
                if s:
                    left = tuple(host.profile(rest, relation) for relation in ("nvlink", "pcie", "numa"))
                left_key = tuple(-x for sizes in left for x in sizes + (0,) * (host.n - len(sizes)))
                link_key = (-links[0], -links[1])
                later: tuple[tuple[int, ...], ...] = (left_key, link_key)
                if request.gpus > 1 and request.affinity.value != "any":
                    later = (link_key, left_key)
                key = (steps, cpu_steps, stranded, work, *later, s, v)
                if found is None or key < found[0]:
                    found = (
                        key,
                        Best(
                            key1=tuple((p, n) for p, n in zip(prios, key1, strict=True) if n),
                            steps=(steps, cpu_steps),
                            stranded=stranded,
                            work=work,
                            links=links,
                            left=left,
                            gpus=s,
                            victims=tuple(holders[i].job for i in v),
                        ),
                    )
        if found is not None:
            return found[1]
    return None

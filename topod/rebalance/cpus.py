"""Whether several jobs together find the CPUs they need, and which ones they get. Exact."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from topod.flextopo.tables import TopologyTables
from topod.model.request import CpuAffinity
from topod.placement.cpus import choose_cpus, pick
from topod.placement.demand import CpuNeed


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The CPUs that one job needs beside `gpus` (a mask) at a level."""

    gpus: int
    need: CpuNeed
    level: CpuAffinity


@dataclass(slots=True, kw_only=True)
class _Demand:
    """CPUs that a job takes from some parts of the host; from each part at most so many."""

    job: int
    count: int
    limits: dict[int, int]
    taken: dict[int, int] = field(default_factory=dict)


class CpuParts:
    """The parts of a host's CPUs that needs can tell apart, and who gets how many of each."""

    __slots__ = ("_parts", "_tables")

    def __init__(self, tables: TopologyTables) -> None:
        self._tables = tables
        areas = {domain.cpus for domain in tables.domains} | {place.socket for place in tables.places}
        parts = [tables.cpus]
        for area in sorted(areas):
            parts = [piece for part in parts for piece in (part & area, part & ~area) if piece]
        self._parts = tuple(parts)

    def suffice(self, pool: int, needs: Sequence[CpuNeed]) -> bool:
        """Say whether the free CPUs of `pool` (a mask) meet all the needs at once."""
        return self._share_out(pool, needs) is not None

    def assign(self, pool: int, wanted: Sequence[Wanted]) -> list[int]:
        """Return the mask of CPUs for each job; `pool` must suffice.

        Each job in turn takes what suits it best; where that leaves too little for a later one, they share.
        """
        chosen: list[int] = []
        rest = pool
        for job in wanted:
            if not job.need.met_by(rest):
                return self._assign_shares(pool, [job.need for job in wanted])
            cpus = choose_cpus(self._tables, job.gpus, job.need, job.level, rest)
            chosen.append(cpus)
            rest &= ~cpus
        return chosen

    def _assign_shares(self, pool: int, needs: Sequence[CpuNeed]) -> list[int]:
        demands = self._share_out(pool, needs)
        assert demands is not None, "the pool does not suffice"
        counts = [dict.fromkeys(range(len(self._parts)), 0) for _ in needs]
        for demand in demands:
            for part, count in demand.taken.items():
                counts[demand.job][part] += count
        chosen = []
        for shares in counts:
            cpus = 0
            for part, count in shares.items():
                cpus |= pick(self._tables, pool & self._parts[part], count)
            chosen.append(cpus)
            pool &= ~cpus
        return chosen

    def _share_out(self, pool: int, needs: Sequence[CpuNeed]) -> list[_Demand] | None:
        """Return how many CPUs of each part every demand takes; None where there are too few.

        A demand that finds its parts empty pushes others to parts that they can use as well.
        """
        free = [(pool & part).bit_count() for part in self._parts]
        demands = [demand for job, need in enumerate(needs) for demand in self._demands(job, need)]
        if sum(demand.count for demand in demands) > sum(free):
            return None
        for demand in demands:
            left = demand.count
            while left:
                got = _push(demands, demand, left, free, set())
                if not got:
                    return None
                left -= got
        return demands

    def _demands(self, job: int, need: CpuNeed) -> list[_Demand]:
        found: list[_Demand] = []
        inside: list[tuple[int, int]] = []
        for area, count in need.flexible:
            if count > 1:
                found.append(self._demand(job, area, count - 1))
            inside.append((area, count - 1))
        # All but `fewer` of the flexible areas give one more each.
        more = len(need.flexible) - need.fewer
        if more > 0:
            limits = {part: 1 for area, _ in need.flexible for part in self._of(area)}
            found.append(_Demand(job=job, count=more, limits=limits))
            inside.append((need.flexible[0][0], more))
        for area, count in sorted(need.fixed, key=lambda fixed: fixed[0].bit_count()):
            rest = count - sum(number for other, number in inside if not other & ~area)
            if rest > 0:
                found.append(self._demand(job, area, rest))
                inside.append((area, rest))
        return found

    def _demand(self, job: int, area: int, count: int) -> _Demand:
        return _Demand(job=job, count=count, limits=dict.fromkeys(self._of(area), count))

    def _of(self, area: int) -> list[int]:
        return [number for number, part in enumerate(self._parts) if not part & ~area]


def _push(demands: Sequence[_Demand], demand: _Demand, most: int, free: list[int], seen: set[int]) -> int:
    """Let a demand take up to `most` more CPUs, others making way; return how many, 0 where none."""
    for part, limit in demand.limits.items():
        room = min(most, limit - demand.taken.get(part, 0))
        if part in seen or room <= 0:
            continue
        seen.add(part)
        got = min(room, free[part])
        free[part] -= got
        for other in demands if not got else ():
            held = other.taken.get(part, 0)
            if other is not demand and held:
                got = _push(demands, other, min(room, held), free, seen)
                if got:
                    other.taken[part] = held - got
                    break
        if got:
            demand.taken[part] = demand.taken.get(part, 0) + got
            return got
    return 0

"""The exact planner: the plan of least cost for one request on one host.

Every GPU set that may be the job's is looked at, as arrays, and whittled down cost key by cost key. A set's
victims are exactly the holders of its GPUs; only when CPUs are short are further victims looked for
(`cover`), and only these can take more than one search to keep the disruption budgets (`budgets`). Ties are
settled by the lowest indices, so the same input always gives the same plan.
The result is proven least in cost by `tests/property/test_planner.py` against a brute-force reference.
"""

from collections import Counter
from dataclasses import dataclass, replace

from topod.flextopo.affinity import steps_below
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Occupancy
from topod.model.plan import Cost, Plan, Refusal
from topod.model.request import Affinity, Policy, ResourceRequest
from topod.placement.cpus import choose_cpus
from topod.placement.demand import NO_NEED, CpuNeed, cpu_levels
from topod.preemption.budgets import TooManyError, keep_budgets, protect_all, spare_nobody
from topod.preemption.extra import Shortage
from topod.preemption.refusal import impossible, refuse, refuse_by_budgets, refuse_by_quota
from topod.preemption.sets import GpuSets
from topod.preemption.victims import State, read_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the search settled on: GPUs and victims as masks (victims by position among the candidates)."""

    gpus: int
    victims: int
    need: CpuNeed = NO_NEED
    cpu_steps: int = 0


def plan(tables: TopologyTables, occupancy: Occupancy, request: ResourceRequest) -> Plan | Refusal:
    """Return the plan of least cost for `request`, or why there is none.

    Raises `DataError` when two holders hold the same GPU or CPU.
    """
    if occupancy.room is not None and request.gpus > occupancy.room.gpus:
        return impossible(tables, request) or refuse_by_quota(occupancy.room, request)
    if not occupancy.may_evict:
        return _without_victims(tables, occupancy, request)
    if occupancy.budgets:
        return _within_budgets(tables, spare_nobody(occupancy), request)
    state = read_state(tables, occupancy, request.priority)
    choice = _search(tables, state, request)
    if choice is None:
        return refuse(tables, occupancy, state, request)
    return _plan(tables, state, request, choice)


def plan_without(
    tables: TopologyTables, occupancy: Occupancy, request: ResourceRequest, gpus: tuple[int, ...]
) -> Plan | None:
    """Return the plan of least cost that takes any other GPU set than `gpus`; None where none is found."""
    if occupancy.room is not None and request.gpus > occupancy.room.gpus:
        return None
    if not occupancy.may_evict:
        occupancy = protect_all(occupancy)
    try:
        return _least(tables, spare_nobody(occupancy), request, rejected=sum(1 << i for i in gpus))
    except TooManyError:
        return None


def _without_victims(
    tables: TopologyTables, occupancy: Occupancy, request: ResourceRequest
) -> Plan | Refusal:
    found = _least(tables, protect_all(occupancy), request)
    if found is not None:
        return found
    later = plan(tables, replace(occupancy, may_evict=True), request)
    if isinstance(later, Refusal):
        return later  # waiting for leave to stop someone is not what is in the way
    stops = "jobs" if len(later.victims) > 1 else "job"
    return Refusal(
        reason=occupancy.evict_reason, details=(f"then: stops {stops} {', '.join(later.victims)}",)
    )


def _within_budgets(tables: TopologyTables, occupancy: Occupancy, request: ResourceRequest) -> Plan | Refusal:
    try:
        found = _least(tables, occupancy, request)
    except TooManyError:
        return Refusal(
            reason="the disruption budgets can be kept in too many ways to find the best within bounds"
        )
    if found is not None:
        return found
    without = plan(tables, replace(occupancy, budgets=()), request)
    if isinstance(without, Refusal):
        return without
    return refuse_by_budgets(occupancy, without, request)


def _least(
    tables: TopologyTables, occupancy: Occupancy, request: ResourceRequest, rejected: int | None = None
) -> Plan | None:
    """Return the plan of least cost that keeps the budgets, taking another GPU set than `rejected`."""

    def search(occupancy: Occupancy) -> Plan | None:
        state = read_state(tables, occupancy, request.priority)
        choice = _search(tables, state, request, rejected)
        return None if choice is None else _plan(tables, state, request, choice)

    if not occupancy.budgets:
        return search(occupancy)
    return keep_budgets(tables, occupancy, request, search)


def _search(
    tables: TopologyTables, state: State, request: ResourceRequest, rejected: int | None = None
) -> Choice | None:
    cpus = request.cpus if isinstance(request.cpus, int) else 0
    if request.gpus > tables.count or cpus > tables.cpus.bit_count():
        return None
    family = tables.family(request.gpus, request.affinity, strict=request.policy is Policy.GUARANTEED)
    sets = GpuSets.usable(tables, state, family)
    if rejected is not None:
        sets = sets.only((sets.masks != rejected).nonzero()[0])
    if state.limits:
        sets = sets.within(state.limits)
    if not len(sets):
        return None
    links_first = request.gpus > 1 and request.affinity is not Affinity.ANY
    if request.cpus == 0:
        sets, victims = _fewest_victims(sets)
        if request.affinity is not Affinity.ANY and request.policy is not Policy.GUARANTEED:
            sets = sets.least(family.steps[sets.rows])
        mask = sets.best(victims=victims, links_first=links_first)
        return Choice(gpus=mask, victims=sets.touched(mask))
    return _search_with_cpus(sets, request, links_first=links_first)


def _fewest_victims(sets: GpuSets) -> tuple[GpuSets, bool]:
    """Return the sets that are least in cost key 1, and whether they need victims."""
    free = (sets.masks & ~sets.state.free_gpus == 0).nonzero()[0]
    if len(free):
        return sets.only(free), False
    return sets.least(sets.weights()), True


def _search_with_cpus(sets: GpuSets, request: ResourceRequest, *, links_first: bool) -> Choice | None:
    shortage = Shortage(sets, request)
    fewest, victims = _fewest_victims(sets)
    enough = shortage.enough(fewest)
    if enough is not None:
        best, cpu_steps = enough
        mask = best.best(victims=victims, links_first=links_first)
        return Choice(
            gpus=mask,
            victims=sets.touched(mask),
            need=shortage.need(sets.tables.mix_of(mask), cpu_steps),
            cpu_steps=cpu_steps,
        )
    found = shortage.least_extra(links_first=links_first)
    if found is None:
        return None
    mask, cpu_steps, needed = found
    return Choice(
        gpus=mask,
        victims=needed,
        need=shortage.need(sets.tables.mix_of(mask), cpu_steps),
        cpu_steps=cpu_steps,
    )


def _plan(tables: TopologyTables, state: State, request: ResourceRequest, choice: Choice) -> Plan:
    victims = [c for i, c in enumerate(state.candidates) if choice.victims >> i & 1]
    pool, freed = state.pool, 0
    for victim in victims:
        pool |= victim.cpus
        freed |= victim.gpus
    cpu_level = cpu_levels(request)[choice.cpu_steps]
    steps = int(tables.steps(request.affinity)[choice.gpus])
    gpus = tuple(i for i in range(tables.count) if choice.gpus >> i & 1)
    weakest, total = tables.link_quality(choice.gpus)
    stays = (state.free_gpus | freed) & ~state.blocked_gpus & ~choice.gpus
    levels: Counter[int] = Counter()
    for victim in victims:
        levels[victim.holder.priority] += victim.holder.stops
    lost = (freed | state.spoils) & ~choice.gpus
    cost = Cost(
        victims=tuple(sorted(levels.items(), reverse=True)),
        affinity_steps=steps,
        cpu_affinity_steps=choice.cpu_steps,
        stranded_gpus=lost.bit_count() + sum(victim.holder.elsewhere for victim in victims),
        work_lost=sum(victim.holder.work for victim in victims),
        weakest_link=weakest,
        link_sum=total,
        left=tables.left_profiles(stays) if gpus else ((), (), ()),
        gpus=gpus,
    )
    return Plan(
        gpus=gpus,
        cpus=CpuSet(choose_cpus(tables, choice.gpus, choice.need, cpu_level, pool)),
        victims=tuple(victim.holder.job for victim in victims),
        affinity=steps_below(request.affinity)[steps],
        cpu_affinity=cpu_level,
        satisfied=not steps and not choice.cpu_steps,
        cost=cost,
    )

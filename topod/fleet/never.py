"""What a fleet as it is can never do, whoever is stopped. Hosts may join: so it is told, not refused."""

from collections.abc import Mapping

from topod.fleet.states import FleetRequest, HostRecord
from topod.flextopo.tables import TopologyTables
from topod.model.request import ResourceRequest
from topod.preemption.refusal import impossible


def never(
    asked: FleetRequest, records: Mapping[str, HostRecord], tables: Mapping[str, TopologyTables]
) -> str | None:
    """Return why no host, or too few, could do it even if all were empty; None where that is not so.

    `tables` of each host whose hardware is known; of the others everything is to be hoped for. Labels are not
    looked at: an administrator can set them.
    """
    few = too_few_hosts(asked, records)
    if few is not None or not records or not tables.keys() >= records.keys():
        return few
    kinds = [tables[name] for name in records]
    models = [kind for kind in kinds if asked.selector.takes_kind(kind.topology)]
    if len(models) < asked.hosts and asked.gpu_model:
        return (
            f"{_has(len(models))} GPUs whose model matches {asked.gpu_model}{_asked(asked)}{_models(kinds)}"
        )
    request = asked.spec.request
    reasons = {kind: impossible(kind, request) for kind in dict.fromkeys(models)}
    able = sum(reasons[kind] is None for kind in models)
    if able >= asked.hosts:
        return None
    if able:
        return f"only {_hosts(able)} of the fleet could ever do it{_asked(asked)}"
    return _too_large(models, request) or "; ".join(
        f"no host of the fleet can: {text}"
        for text in sorted({refusal.reason for refusal in reasons.values() if refusal is not None})
    )


def too_few_hosts(asked: FleetRequest, records: Mapping[str, HostRecord]) -> str | None:
    """Return the same of the number of hosts alone."""
    if not records or asked.hosts <= len(records):
        return None
    return f"the fleet has {_hosts(len(records))}, {asked.hosts} are asked for"


def _too_large(kinds: list[TopologyTables], request: ResourceRequest) -> str | None:
    most = max(kind.count for kind in kinds)
    if request.gpus <= most:
        return None
    gpus = f"{request.gpus} GPU{'' if request.gpus == 1 else 's'}"
    return f"{gpus} on one host asked for, no host of the fleet has more than {most}"


def _models(kinds: list[TopologyTables]) -> str:
    found = sorted({gpu.name for kind in kinds for gpu in kind.topology.gpus})
    return f"; the fleet has {', '.join(found)}" if found else "; the fleet has no GPUs"


def _has(count: int) -> str:
    if count == 0:
        return "no host of the fleet has"
    return f"only {_hosts(count)} of the fleet {'has' if count == 1 else 'have'}"


def _asked(asked: FleetRequest) -> str:
    return f", {asked.hosts} are asked for" if asked.hosts > 1 else ""


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"

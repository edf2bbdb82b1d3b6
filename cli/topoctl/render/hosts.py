"""The hosts of a fleet as lines: `topoctl hosts`."""

from collections.abc import Mapping, Sequence

from topoctl.render.jobs import ago
from topoctl.render.style import Style, printable
from topoctl.render.table import Column, table
from topod.protocol.replies import Counts
from topod.protocol.views import FleetHostView

PORT_GAUGES = frozenset({"connections", "half_open", "accepted", "admitted"})
"""What is counted of the port and is no refusal."""
COLORS = {
    "ready": "green",
    "joining": "cyan",
    "cordoned": "yellow",
    "drained": "yellow",
    "closed": "yellow",
    "silent": "red",
    "away": "red",
}


def hosts_table(hosts: Sequence[FleetHostView], now: float, style: Style, *, wide: bool) -> str:
    """Return one line for each host; `now` in epoch seconds."""
    columns = [
        Column(head="HOST", most=24),
        Column(head="STATE", colors=COLORS),
        Column(head="FREE", right=True),
        Column(head="MODEL", most=16),
        Column(head="JOBS", right=True),
        Column(head="LABELS", most=20),
        Column(head="VERSION"),
        Column(head="HEARD"),
        Column(head="REASON"),
    ]
    rows = [
        [
            printable(host.name),
            host.state,
            _free(host),
            printable(", ".join(host.gpu_models)) or "-",
            str(len(host.jobs)),
            printable(",".join(f"{name}={value}" for name, value in sorted(host.labels.items()))) or "-",
            printable(host.version) or "-",
            "-" if host.heard_at is None else ago(min(host.heard_at, now), now),
            printable("; ".join(filter(None, [host.reason, *host.troubles]))),
        ]
        for host in hosts
    ]
    return table(columns, rows, style, whole=wide)


def _free(host: FleetHostView) -> str:
    if host.gpus is None:
        return "-"
    return f"{'?' if host.free_gpus is None else host.free_gpus}/{host.gpus}"


def counts_line(counts: Counts) -> str:
    """Return how many hosts and jobs are in which state, as one line."""
    hosts, jobs = _by_state(counts.host_states), _by_state(counts.job_states)
    return f"hosts: {hosts or 'none'}; jobs: {jobs or 'none'}"


def port_line(counts: Counts) -> str:
    """Return whom the coordinator's port refused or cut since its start, by reason; empty: nobody."""
    refused = {name.replace("_", " "): n for name, n in counts.port.items() if name not in PORT_GAUGES and n}
    return f"port, refused or cut: {_by_state(refused)}" if refused else ""


def _by_state(states: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in sorted(states.items()))

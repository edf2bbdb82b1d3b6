"""Writes docs/monitoring/grafana.json, a dashboard for Grafana: `python docs/generate_dashboard.py`.

A test compares the file with what this would write, and what it asks for with the metrics that there are.
"""

import json
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).resolve().parent / "monitoring" / "grafana.json"
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
HERE: Final = 'instance=~"$instance"'
WIDTH: Final = 24
PHASES: Final = "topod_preemption_phase_duration_seconds"
PLACEMENTS: Final = "topod_affinity_placements_total"
MISSED: Final = ', result="missed"'
Queries = list[tuple[str, str]]
"""PromQL and how the legend calls what it gives."""


def quantile(share: float, metric: str, by: str = "") -> str:
    """Return the query for a quantile of a histogram over the instances that are chosen."""
    labels = ", ".join(["le", *([by] if by else [])])
    return (
        f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{{HERE}}}[$__rate_interval])))"
    )


def rate(metric: str, by: str, more: str = "") -> str:
    """Return the query for what a counter gains a second."""
    return f"sum by ({by}) (rate({metric}{{{HERE}{more}}}[$__rate_interval]))"


def total(metric: str, by: str = "", more: str = "") -> str:
    """Return the query for the sum of a gauge."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} ({metric}{{{HERE}{more}}})"


STATS: Final[list[tuple[str, str, str, str]]] = [
    ("Hosts", f'count(topod_build_info{{part="host", {HERE}}})', "short", "that answer"),
    ("GPUs free", total("topod_gpus", more=', state="free"'), "short", ""),
    ("GPUs in use", total("topod_gpus", more=', state=~"held|releasing|reserved"'), "short", ""),
    (
        "GPUs kept back",
        total("topod_gpus", more=', state=~"unhealthy|quarantined|drained|foreign"'),
        "short",
        "",
    ),
    ("Jobs running", total("topod_jobs", more=', state="running"'), "short", ""),
    ("Jobs waiting", total("topod_jobs", more=', state="pending"'), "short", ""),
    ("Troubles", total("topod_trouble"), "short", "what does not work just now"),
    (
        "Oldest of high priority",
        f'max(topod_oldest_pending_seconds{{priority="high", {HERE}}})',
        "s",
        "how long it has waited",
    ),
]
ROWS: Final[list[tuple[str, list[tuple[str, str, bool, str, Queries]]]]] = [
    (
        "GPUs",
        [
            ("GPUs by state", "short", True, "", [(total("topod_gpus", "state"), "{{state}}")]),
            (
                "Largest free group",
                "short",
                False,
                "The most GPUs that one job of an affinity could have at once without stopping anybody.",
                [
                    (
                        f"max by (affinity) (topod_largest_free_group_gpus{{{HERE}}})",
                        "{{affinity}}",
                    )
                ],
            ),
            (
                "GPUs that are not handed out",
                "short",
                False,
                "By host, index and reason.",
                [(f"topod_gpu_marked{{{HERE}}}", "{{instance}} GPU {{gpu}} {{kind}}")],
            ),
            (
                "What was seen of them",
                "short",
                False,
                "",
                [(f"topod_gpu_cause{{{HERE}}}", "{{instance}} GPU {{gpu}} {{cause}}")],
            ),
        ],
    ),
    (
        "Jobs",
        [
            ("Jobs by state", "short", True, "", [(total("topod_jobs", "state"), "{{state}}")]),
            (
                "Waiting, by priority",
                "short",
                True,
                "",
                [(total("topod_jobs", "priority", ', state="pending"'), "{{priority}}")],
            ),
            (
                "Wait for the first start, by priority",
                "s",
                False,
                "Half of the jobs wait for less, and 95 of 100.",
                [
                    (quantile(0.5, "topod_queue_wait_seconds", "priority"), "{{priority}} 50%"),
                    (quantile(0.95, "topod_queue_wait_seconds", "priority"), "{{priority}} 95%"),
                ],
            ),
            ("Jobs that end", "ops", True, "", [(rate("topod_jobs_ended_total", "state"), "{{state}}")]),
        ],
    ),
    (
        "Decisions and preemptions",
        [
            (
                "Preemptions and victims",
                "ops",
                False,
                "",
                [
                    (rate("topod_preemptions_total", "result"), "{{result}}"),
                    (rate("topod_victims_total", "priority"), "victims of {{priority}} priority"),
                ],
            ),
            (
                "Where preemptions spend their time",
                "s",
                True,
                "The mean of each phase.",
                [
                    (
                        f"{rate(f'{PHASES}_sum', 'phase')} / {rate(f'{PHASES}_count', 'phase')}",
                        "{{phase}}",
                    )
                ],
            ),
            (
                "From the decision until it runs",
                "s",
                False,
                "",
                [
                    (quantile(0.5, "topod_preemption_duration_seconds"), "50%"),
                    (quantile(0.99, "topod_preemption_duration_seconds"), "99%"),
                ],
            ),
            (
                "Time to decide",
                "s",
                False,
                "",
                [(quantile(0.99, "topod_decision_duration_seconds", "outcome"), "{{outcome}} 99%")],
            ),
            (
                "Decisions",
                "ops",
                True,
                "",
                [(rate("topod_decisions_total", "outcome"), "{{outcome}}")],
            ),
            (
                "Affinity missed",
                "percentunit",
                False,
                "Of the placements that asked for it.",
                [
                    (
                        f"{rate(PLACEMENTS, 'affinity', MISSED)} / {rate(PLACEMENTS, 'affinity')}",
                        "{{affinity}}",
                    )
                ],
            ),
        ],
    ),
    (
        "Fleet",
        [
            ("Hosts by state", "short", True, "", [(total("topod_fleet_hosts", "state"), "{{state}}")]),
            ("GPUs of the fleet", "short", True, "", [(total("topod_fleet_gpus", "state"), "{{state}}")]),
            ("Jobs of the fleet", "short", True, "", [(total("topod_fleet_jobs", "state"), "{{state}}")]),
            (
                "Time to decide, in the fleet",
                "s",
                False,
                "",
                [(quantile(0.99, "topod_fleet_decision_duration_seconds", "outcome"), "{{outcome}} 99%")],
            ),
            (
                "Refused by the port",
                "ops",
                False,
                "",
                [(rate("topod_messages_refused_total", "reason"), "{{reason}}")],
            ),
            (
                "Who leads",
                "short",
                False,
                "",
                [(f"topod_fleet_leads{{{HERE}}}", "{{instance}}")],
            ),
        ],
    ),
    (
        "topod itself",
        [
            (
                "CPU",
                "percentunit",
                False,
                "Of one core.",
                [
                    (
                        f"{rate('process_cpu_seconds_total', 'instance')} and on (instance) topod_build_info",
                        "{{instance}}",
                    )
                ],
            ),
            (
                "Memory",
                "bytes",
                False,
                "",
                [
                    (
                        f"process_resident_memory_bytes{{{HERE}}} and on (instance) topod_build_info",
                        "{{instance}}",
                    )
                ],
            ),
            (
                "Requests that are refused",
                "ops",
                False,
                "",
                [
                    (
                        rate("topod_requests_total", "outcome", ', outcome!="ok"'),
                        "{{outcome}}",
                    )
                ],
            ),
            ("Troubles", "short", True, "", [(total("topod_trouble", "subject"), "{{subject}}")]),
        ],
    ),
]


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    for at, (title, query, unit, text) in enumerate(STATS):
        place = {"x": at * 3, "y": 0, "w": 3, "h": 4}
        panels.append(_stat(title, query, unit, text) | {"id": len(panels) + 1, "gridPos": place})
    y = 4
    for title, row in ROWS:
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        panels.append(
            {
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "id": len(panels) + 1,
                "gridPos": place,
            }
        )
        y += 1
        for at, (name, unit, stacked, text, queries) in enumerate(row):
            place = {"x": at % 2 * 12, "y": y + at // 2 * 8, "w": 12, "h": 8}
            panel = _series(name, unit, text, queries, stacked=stacked)
            panels.append(panel | {"id": len(panels) + 1, "gridPos": place})
        y += (len(row) + 1) // 2 * 8
    return {
        "uid": "topod",
        "title": "topod",
        "description": "GPUs, jobs and preemptions of hosts with topod, and of a fleet.",
        "tags": ["topod", "gpu"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source(), _instance()]},
        "panels": panels,
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _instance() -> dict[str, Any]:
    query = "label_values(topod_build_info, instance)"
    return {
        "name": "instance",
        "label": "Instance",
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "instances"},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _targets(queries: Queries) -> list[dict[str, Any]]:
    return [
        {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": query, "legendFormat": legend}
        for at, (query, legend) in enumerate(queries)
    ]


def _stat(title: str, query: str, unit: str, text: str) -> dict[str, Any]:
    return {
        "type": "stat",
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "targets": _targets([(query, "")]),
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "options": {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "none",
            "graphMode": "area",
        },
    }


def _series(title: str, unit: str, text: str, queries: Queries, *, stacked: bool) -> dict[str, Any]:
    custom: dict[str, Any] = {"drawStyle": "line", "fillOpacity": 30 if stacked else 0}
    custom["stacking"] = {"mode": "normal" if stacked else "none", "group": "A"}
    return {
        "type": "timeseries",
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "targets": _targets(queries),
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def text() -> str:
    """Return the file."""
    return json.dumps(dashboard(), indent=1) + "\n"


def main() -> None:
    """Write the file."""
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()

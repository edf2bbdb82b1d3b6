"""Writes docs/reference/metrics.md from the code: `python docs/generate_metrics.py`.

A test compares the file with what this would write.
"""

from collections.abc import Iterable
from pathlib import Path

from topod.model.request import PRIORITIES
from topod.shell.metrics import catalogue as cat
from topod.shell.metrics.catalogue import Metric

PAGE = Path(__file__).resolve().parent / "reference" / "metrics.md"
INTRO = """\
# Metrics

<!-- Written from the code: change that, then run `python docs/generate_metrics.py`. -->

`topod --metrics PORT` and `topod-coordinator --metrics PORT`, or `listen` in `[metrics]` and `metrics` in
`[coordinator]` of the [configuration](configuration.md), answer `GET /metrics` in Prometheus's text format.
[How to monitor](../howto/monitor.md) says how to scrape it, and brings a dashboard and alerts.

Counters and histograms begin at 0 when the process does. `priority` is the highest named priority that a
job's reaches: `high` from {high}, `normal` from {normal}, else `low`. `process_*` (CPU time, memory,
descriptors) come with the client library. Labels have few values: no job, user or host is ever one.
"""


def page() -> str:
    """Return the whole page."""
    parts = [
        INTRO.format(**PRIORITIES),
        _section("Both", cat.COMMON),
        _section("`topod`, of its host", cat.OF_HOST),
        _section("`topod-coordinator`, of its fleet", cat.OF_FLEET),
    ]
    return "\n".join(parts)


def _section(title: str, metrics: Iterable[Metric]) -> str:
    rows = "".join(f"| `{one.name}` | {one.kind.value} | {_labels(one)} | {one.help} |\n" for one in metrics)
    return f"## {title}\n\n| name | type | labels | meaning |\n| --- | --- | --- | --- |\n{rows}"


def _labels(metric: Metric) -> str:
    return "<br>".join(
        f"`{name}`: {', '.join(values)}" if values else f"`{name}`" for name, values in metric.labels.items()
    )


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

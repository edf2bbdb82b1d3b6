"""The dashboard and the alerts ask for metrics that there are. The dashboard is checked against a schema only:

the parts of Grafana's format that it uses, by hand; no Grafana has loaded it in a test.
"""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from tests.promtool import promtool
from topod.shell.metrics import catalogue as cat

DOCS = Path(__file__).resolve().parents[3] / "docs"
MONITORING = DOCS / "monitoring"
KINDS = {metric.name: metric.kind for metric in (*cat.COMMON, *cat.OF_HOST, *cat.OF_FLEET)}
LABELS = {metric.name: metric.labels for metric in (*cat.COMMON, *cat.OF_HOST, *cat.OF_FLEET)}
FOREIGN = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}


class Part(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """Of the dashboard: a key that is not named here fails the test."""


class Source(Part):
    type: Literal["prometheus"]
    uid: Literal["${source}"]


class Target(Part):
    ref_id: str
    datasource: Source
    expr: str
    legend_format: str


class Place(Part):
    x: int
    y: int
    w: int
    h: int


class Stacking(Part):
    mode: Literal["none", "normal", "percent"]
    group: str


class Custom(Part):
    draw_style: Literal["line", "bars", "points"]
    fill_opacity: int
    stacking: Stacking


class Defaults(Part):
    unit: Literal["short", "s", "ops", "bytes", "percentunit"]
    min: int = 0
    custom: Custom | None = None


class FieldConfig(Part):
    defaults: Defaults
    overrides: list[Any]


class Panel(Part):
    id: int
    type: Literal["row", "stat", "timeseries"]
    title: str
    grid_pos: Place
    description: str = ""
    datasource: Source | None = None
    targets: list[Target] = []
    field_config: FieldConfig | None = None
    options: dict[str, Any] = {}
    collapsed: bool = False
    panels: list[Any] = []


class Variable(Part):
    name: str
    label: str
    type: Literal["datasource", "query"]
    query: str | dict[str, str]
    datasource: Source | None = None
    definition: str = ""
    refresh: int = 0
    include_all: bool = False
    all_value: str = ""
    multi: bool = False
    current: dict[str, str] = {}


class Variables(Part):
    list: list[Variable]


class Dashboard(Part):
    uid: str
    title: str
    description: str
    tags: list[str]
    schema_version: int
    version: int
    editable: bool
    timezone: str
    refresh: str
    time: dict[str, str]
    templating: Variables
    panels: list[Panel]


def dashboard() -> Dashboard:
    return msgspec.json.decode((MONITORING / "grafana.json").read_bytes(), type=Dashboard)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[str]:
    asked = [target.expr for panel in dashboard().panels for target in panel.targets]
    return [*asked, *(rule["expr"] for rule in rules())]


def check(query: str) -> None:
    """Every metric that a query names exists, as a whole and with the labels that it asks for."""
    for name, chosen in re.findall(r"\b((?:topod|process)_[a-z_]+|up\b)(?:\{([^}]*)\})?", query):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        base = base if KINDS.get(base) is cat.Kind.HISTOGRAM else name
        assert base in KINDS.keys() | FOREIGN, name
        if base not in KINDS:
            continue
        assert (KINDS[base] is cat.Kind.HISTOGRAM) == (base != name), name
        for label, _, value in re.findall(r'(\w+)(=~|!~|=|!=)"([^"]*)"', chosen):
            if label == "instance":
                continue
            assert label in LABELS[base], (name, label)
            known = LABELS[base][label]
            assert not known or set(value.split("|")) <= {*known}, (name, value)


def test_every_metric_of_the_dashboard_and_the_alerts_exists() -> None:
    asked = queries()
    assert len(asked) > 40
    for query in asked:
        check(query)


def test_each_reason_that_an_alert_is_about_is_one_that_the_port_counts() -> None:
    source = (DOCS.parent / "topod/adapters/curve_server.py").read_text()
    named = [words for query in queries() for words in re.findall(r'reason=~"([^"]*)"', query)]
    assert named
    for word in "|".join(named).split("|"):
        assert f'"{word}"' in source, word


def test_the_dashboard_is_that_of_its_generator_and_keeps_to_the_schema() -> None:
    spec: Any = importlib.util.spec_from_file_location("dashboard", DOCS / "generate_dashboard.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (MONITORING / "grafana.json").read_text() == module.text(), "run `make docs`"
    panels = dashboard().panels
    assert [panel.id for panel in panels] == list(range(1, len(panels) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel.grid_pos
        cells = {(x, y) for x in range(at.x, at.x + at.w) for y in range(at.y, at.y + at.h)}
        assert at.x + at.w <= 24
        assert not taken & cells, panel.title
        taken |= cells
        assert (panel.type == "row") == (not panel.targets)
        assert panel.type == "row" or (panel.field_config is not None and panel.options)


def test_each_alert_says_how_grave_it_is_what_it_is_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"].keys() == {"summary", "description"}


def test_prometheus_takes_the_alerts_and_they_fire_when_they_should() -> None:
    for words in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        done = promtool(words[0], words[1], str(MONITORING / words[2]))
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    asked = [target.expr for panel in dashboard().panels for target in panel.targets]
    records = [
        {"record": f"q{at}", "expr": query.replace("$__rate_interval", "5m").replace("$instance", ".*")}
        for at, query in enumerate(asked)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "g", "rules": records}]}))
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr

"""The catalogue of metrics: by Prometheus's conventions, few series, told on its page."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from topod.adapters.metrics_port import parse_place
from topod.fleet.states import ENDED as FLEET_ENDED
from topod.fleet.states import FleetJobState
from topod.lifecycle.states import ENDED, JobState
from topod.protocol.views import FleetHostView, GpuView
from topod.shell.metrics import catalogue as cat
from topod.shell.metrics.catalogue import Kind, Metric, level_of

DOCS = Path(__file__).resolve().parents[3] / "docs"
EVERY = {metric.name: metric for metric in (*cat.COMMON, *cat.OF_HOST, *cat.OF_FLEET)}


@pytest.mark.parametrize("metric", EVERY.values(), ids=lambda metric: metric.name)
def test_names_and_labels_are_prometheus_own(metric: Metric) -> None:
    assert re.fullmatch(r"topod_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    if metric.kind is Kind.HISTOGRAM:
        assert metric.name.endswith("_seconds")
        assert list(metric.buckets) == sorted(set(metric.buckets))
    assert not metric.labels.keys() & {"job", "user", "host", "instance", "le", "id", "uuid"}
    assert len(metric.combinations()) <= 24
    assert metric.help.endswith(".")


def test_the_page_is_that_of_the_code() -> None:
    spec: Any = importlib.util.spec_from_file_location("metrics_page", DOCS / "generate_metrics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "reference/metrics.md").read_text() == module.page(), "run `make docs`"


def test_a_priority_counts_as_the_highest_named_one_that_it_reaches() -> None:
    found = {number: level_of(number) for number in (-5, 0, 100, 499, 500, 1000, 5000)}
    expected = ("low", "low", "low", "low", "normal", "high", "high")
    assert tuple(found.values()) == expected


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("localhost:1", ("127.0.0.1", 1)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_a_place_is_on_loopback_unless_told(text: str, place: tuple[str, int]) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text", ["", "x", ":9464", "70000", "999999", "::1:9464", "300.1.1.1:80", "host:80", "80:80"]
)
def test_what_is_no_place_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"written PORT|no IP address|is no port"):
        parse_place(text)


def test_every_state_that_there_is_is_told() -> None:
    assert {*cat.HOST_JOB_STATES, *cat.HOST_ENDS} == {state.value for state in JobState}
    assert {*cat.HOST_ENDS} == {state.value for state in ENDED}
    assert {*cat.FLEET_JOB_STATES, *cat.FLEET_ENDS} == {state.value for state in FleetJobState}
    assert {*cat.FLEET_ENDS} == {state.value for state in FLEET_ENDED}
    said = re.search(r"`state`: ([^.]*)\.", GpuView.__doc__ or "")
    assert said is not None
    assert {*cat.GPU_STATES} == set(said[1].split(", "))
    said = re.search(r"`state`: ([^.]*)\.", FleetHostView.__doc__ or "")
    assert said is not None
    assert {*cat.HOST_STATES} == {word.split(" ")[0] for word in said[1].split(", ")}

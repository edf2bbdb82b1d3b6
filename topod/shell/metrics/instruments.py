"""Counters and histograms of one process, and what it tells of its state when it is asked.

Counting may be done by any thread: the library locks each value. `render` is for one thread at a time.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from topod import __version__
from topod.errors import TopodError
from topod.protocol import replies as rp
from topod.protocol import requests as rq
from topod.shell.metrics import catalogue as cat
from topod.shell.metrics.catalogue import Kind, Metric

Sample = tuple[Metric, tuple[str, ...], float]
"""Of a gauge, or of a counter that somebody else counts: the metric, the values of its labels, the value."""
TROUBLES: Final = ("fleet", "gpus", "port", "runtime", "socket", "store")
P = TypeVar("P")


class _Now(Collector):
    """What is told of the state at one moment."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = tuple(metrics)
        self.samples: Iterable[Sample] = ()

    def collect(self) -> Iterable[Family]:
        """Return the families that have a sample."""
        families = {metric.name: _family(metric) for metric in self._metrics}
        for metric, labels, value in self.samples:
            families[metric.name].add_metric(labels, value)
        return [family for family in families.values() if family.samples]


class Instruments:
    """What one process counts itself, and how all that it tells is written."""

    def __init__(self, part: str, metrics: Iterable[Metric], *, elsewhere: Iterable[Metric] = ()) -> None:
        """`part`: `host` or `coordinator`; the counters `elsewhere` are told as samples, like gauges."""
        # Times at which a series was made are no use here and half of the text.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it without a type
        self._build = (__version__, part)
        self._started = time.time()
        self._registry = CollectorRegistry()
        told = set(map(id, elsewhere))
        every = (*cat.COMMON, *metrics)
        self._now = _Now(metric for metric in every if metric.kind is Kind.GAUGE or id(metric) in told)
        self._registry.register(self._now)
        own = [metric for metric in every if metric.kind is not Kind.GAUGE and id(metric) not in told]
        self._counters = {metric.name: self._counter(metric) for metric in own if metric.kind is Kind.COUNTER}
        self._timers = {metric.name: self._timer(metric) for metric in own if metric.kind is Kind.HISTOGRAM}
        ProcessCollector(registry=self._registry)

    def count(self, metric: Metric, *labels: str, by: int = 1) -> None:
        """Add to a counter."""
        counter = self._counters[metric.name]
        (counter.labels(*labels) if labels else counter).inc(by)

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Take in a duration."""
        timer = self._timers[metric.name]
        (timer.labels(*labels) if labels else timer).observe(max(0.0, seconds))

    def counted(self, answer: "Answer[P]") -> "Answer[P]":
        """Return the same function of requests, whose outcomes are counted."""

        async def asked(request: rq.AnyRequest, peer: P) -> rp.AnyReply:
            outcome = "ok"
            try:
                return await answer(request, peer)
            except TopodError as refused:
                outcome = refused.code
                raise
            finally:
                self.count(cat.REQUESTS, type(request).__name__, outcome)

        return asked

    def render(self, samples: Iterable[Sample], troubles: Iterable[str]) -> bytes:
        """Return all that is counted, and the samples, as Prometheus's text format."""
        missing = set(troubles)
        subjects = sorted({*TROUBLES, *missing})
        self._now.samples = [
            (cat.BUILD, self._build, 1),
            (cat.STARTED, (), self._started),
            *((cat.TROUBLE, (subject,), subject in missing) for subject in subjects),
            *samples,
        ]
        return generate_latest(self._registry)

    def _counter(self, metric: Metric) -> Counter:
        made = Counter(metric.name, metric.help, tuple(metric.labels), registry=self._registry)
        for values in metric.combinations() if metric.labels else ():
            made.labels(*values)
        return made

    def _timer(self, metric: Metric) -> Histogram:
        names = tuple(metric.labels)
        made = Histogram(metric.name, metric.help, names, registry=self._registry, buckets=metric.buckets)
        for values in metric.combinations() if metric.labels else ():
            made.labels(*values)
        return made


Answer = Callable[[rq.AnyRequest, P], Awaitable[rp.AnyReply]]


def _family(metric: Metric) -> GaugeMetricFamily | CounterMetricFamily:
    kind = GaugeMetricFamily if metric.kind is Kind.GAUGE else CounterMetricFamily
    return kind(metric.name, metric.help, labels=tuple(metric.labels))

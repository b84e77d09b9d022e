"""A histogram that counts a batch of observations at once.

`prometheus_client.Histogram` takes a lock several times for each observation, which costs more than the rest
of a delivery's accounting.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import CollectorRegistry


class BatchHistogram(Collector):
    """One family with one label, scraped like any other. Written by one event loop only."""

    def __init__(
        self, name: str, sentence: str, label: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        """`buckets`: upper bounds in the order of their size, without infinity."""
        self._name = name
        self._sentence = sentence
        self._label = label
        self._bounds = tuple(float(bound) for bound in buckets)
        self._series: dict[str, Series] = {}
        registry.register(self)

    def labels(self, value: str) -> Series:
        """The series of that label value; it exists from now on, with 0 observations."""
        return self._series.setdefault(value, Series(self._bounds))

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Name the family, so that another one of its name is refused."""
        return [HistogramMetricFamily(self._name, self._sentence, labels=[self._label])]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Return the family as it is now, for a scrape."""
        family = HistogramMetricFamily(self._name, self._sentence, labels=[self._label])
        for value, series in self._series.items():
            family.add_metric([value], series.cumulative(), series.sum)
        return [family]


class Series:
    """The observations under one label value."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        """Of all observed values."""

    def observe(self, values: Iterable[float]) -> None:
        """Count values."""
        bounds, counts = self._bounds, self._counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Each upper bound as text with the number of values up to it."""
        rows, total = [], 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            rows.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
        return rows

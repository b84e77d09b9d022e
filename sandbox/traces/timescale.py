"""Maps time to a place on the page: a linear scale without the long stretches in which nothing happened.

So the milliseconds of the agents stay visible even if a photo waited an hour in its stream or was replayed
the next morning.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.traces.spans import Trace

_USED: Final = 91.0
"""Per cent of the width; the rest is for the label of the last bar."""
_CUT_WIDTH: Final = 4.0
_CUTS_LIMIT: Final = 6
_SHORTEST_CUT: Final = 2_000_000_000
"""Nanoseconds; shorter quiet stretches stay as they are."""


class _Stretch(msgspec.Struct, frozen=True, kw_only=True):
    start: int
    end: int
    left: float
    width: float


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Is a quiet stretch that is left out: its place (per cent) and its length (nanoseconds)."""

    left: float
    width: float
    length: int


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """Is a mark on the axis."""

    time: int
    since_cut: int | None
    """Nanoseconds since the end of the last cut; None before the first."""


class TimeScale:
    """Places the times of one trace between 0 and 100 per cent."""

    def __init__(self, trace: Trace) -> None:
        """Find what can be left out: quiet stretches longer than three times all the work."""
        busy = _busy(trace)
        work = sum(end - start for start, end in busy) or 1000
        gaps = [(after[0] - before[1], before[1]) for before, after in pairwise(busy)]
        long = [gap for gap in gaps if gap[0] > max(3 * work, _SHORTEST_CUT)]
        cut_after = {start: length for length, start in sorted(long, reverse=True)[:_CUTS_LIMIT]}
        self.start = trace.start
        shown = max(trace.end - trace.start - sum(cut_after.values()), 1000)
        self.shown = shown
        """Nanoseconds that are drawn."""
        self.cuts: list[Cut] = []
        self._stretches: list[_Stretch] = []
        per_nano = (_USED - _CUT_WIDTH * len(cut_after)) / shown
        begin, left = trace.start, 0.0
        for end in [*sorted(cut_after), trace.start + shown + sum(cut_after.values())]:
            width = (end - begin) * per_nano
            self._stretches.append(_Stretch(start=begin, end=end, left=left, width=width))
            left += width
            if end in cut_after:
                self.cuts.append(Cut(left=left, width=_CUT_WIDTH, length=cut_after[end]))
                left += _CUT_WIDTH
                begin = end + cut_after[end]

    def at(self, time: int) -> float:
        """Return the place of a time, in per cent of the width."""
        index = max(bisect_right(self._stretches, time, key=lambda stretch: stretch.start) - 1, 0)
        stretch = self._stretches[index]
        inside = min(max(time - stretch.start, 0), stretch.end - stretch.start)
        length = max(stretch.end - stretch.start, 1)
        place = stretch.left + inside / length * stretch.width
        if time > stretch.end and index + 1 < len(self._stretches):
            # the time is inside a cut: place it in the middle of the mark
            place += _CUT_WIDTH / 2
        return place

    def ticks(self) -> Iterator[Tick]:
        """Yield marks at round distances, about eight in all; after a cut they count from its end."""
        step = _round_step(self.shown)
        for stretch in self._stretches:
            for time in range(stretch.start, stretch.end + 1, step):
                yield Tick(time=time, since_cut=time - stretch.start if stretch.left else None)


def _busy(trace: Trace) -> list[tuple[int, int]]:
    """Return the stretches in which a span was open; overlapping spans are merged."""
    merged: list[tuple[int, int]] = []
    for span in sorted(trace.spans, key=lambda span: span.start):
        if merged and span.start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], span.end))
        else:
            merged.append((span.start, span.end))
    return merged


def _round_step(length: int) -> int:
    """Return a round distance for at most eight ticks on a length, both in nanoseconds."""
    size = 1
    while True:
        for factor in (1, 2, 5):
            if length <= size * factor * 8:
                return size * factor
        size *= 10

"""Times become places: in order, within the picture, and without the hours in which nothing happened."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sandbox.traces.spans import Resource, Span, Trace
from sandbox.traces.timescale import TimeScale

_SPAN = Span(
    trace_id="t",
    span_id="",
    parent_id="",
    name="n",
    kind="",
    start=0,
    end=0,
    attributes={},
    events=(),
    links=(),
    status="",
    message="",
    trace_state="",
    scope="",
    resource=Resource(service="x", attributes={}),
)


def trace(*times: tuple[int, int]) -> Trace:
    """A trace of spans with these starts and ends."""
    spans = tuple(
        msgspec.structs.replace(_SPAN, span_id=str(index), start=start, end=end)
        for index, (start, end) in enumerate(sorted(times))
    )
    return Trace(trace_id="t", spans=spans)


SECOND = 1_000_000_000


def test_a_trace_without_long_pauses_is_drawn_straight() -> None:
    scale = TimeScale(trace((0, SECOND), (2 * SECOND, 4 * SECOND)))
    assert scale.cuts == []
    assert scale.at(0) == 0
    assert scale.at(2 * SECOND) == scale.at(4 * SECOND) / 2
    assert [tick.time // SECOND for tick in scale.ticks() if tick.time % SECOND == 0] == [0, 1, 2, 3, 4]


def test_an_hour_of_waiting_is_cut_out_and_the_work_stays_visible() -> None:
    hour = 3600 * SECOND
    scale = TimeScale(trace((0, SECOND), (hour, hour + SECOND)))
    (cut,) = scale.cuts
    assert cut.length == hour - SECOND
    assert scale.at(SECOND) - scale.at(0) > 40
    assert scale.at(hour + SECOND) - scale.at(hour) > 40
    assert cut.left < scale.at(hour // 2) < cut.left + cut.width
    assert [tick.since_cut for tick in scale.ticks() if tick.since_cut == 0] == [0]


@given(
    st.lists(st.tuples(st.integers(0, 10**14), st.integers(0, 10**12)), min_size=1, max_size=20),
    st.lists(st.integers(-(10**13), 10**15), min_size=2, max_size=10),
)
def test_whatever_the_times_places_are_in_order_and_inside(
    spans: list[tuple[int, int]], asked: list[int]
) -> None:
    scale = TimeScale(trace(*((start, start + length) for start, length in spans)))
    places = [scale.at(time) for time in sorted(asked)]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)
    assert len(list(scale.ticks())) <= 30

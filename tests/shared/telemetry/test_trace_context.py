"""Which traceparent and tracestate are taken, and that none can hurt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.telemetry import trace_context

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize("flags", ["00", "01", "02", "03", "ff"])
def test_any_flags_are_taken_and_the_lowest_bit_decides(flags: str) -> None:
    found = trace_context.read({"traceparent": f"00-{TRACE}-{SPAN}-{flags}"})
    assert found.traceparent.endswith(flags)
    assert found.sampled is bool(int(flags, 16) & 1)


def test_fields_may_be_bytes_or_text() -> None:
    as_bytes = trace_context.read({b"traceparent": GOOD.encode(), b"tracestate": b"erni=1"})
    as_text = trace_context.read({"traceparent": GOOD, "tracestate": "erni=1"})
    assert as_bytes == as_text == trace_context.IncomingContext(traceparent=GOOD, tracestate="erni=1")


@pytest.mark.parametrize("later", ["cc-{}-{}-01", "cc-{}-{}-01-what-comes-later"])
def test_a_later_version_is_read_as_far_as_it_is_known(later: str) -> None:
    context = trace_context.read({"traceparent": later.format(TRACE, SPAN)})
    assert trace_context.span_context_of(context.traceparent).trace_id == int(TRACE, 16)


@pytest.mark.parametrize(
    "traceparent",
    [
        "x",
        GOOD.upper(),
        GOOD + "0",
        GOOD + "-extra",
        GOOD + "\n",
        " " + GOOD,
        GOOD[:-1],
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 300}",
        f"cc-{TRACE}-{SPAN}-01.",
        "00-" + "a" * 1_000_000,
        f"0\u0660-{TRACE}-{SPAN}-01",
    ],
)
def test_a_malformed_or_absurdly_long_traceparent_is_rejected(traceparent: str) -> None:
    assert trace_context.read({"traceparent": traceparent}).rejected == "traceparent"


@pytest.mark.parametrize(
    "tracestate",
    [
        "a=1",
        "a=1,b=2",
        "tenant@vendor=x:y/z",
        "a=1, b=2 ",
        "a=1,,b=2",
        ",".join(f"k{n}=1" for n in range(32)),
        "a=" + "x" * 256 + ",b=" + "y" * 256 + ",c=" + "z" * 256,
    ],
)
def test_a_tracestate_of_the_standard_is_taken(tracestate: str) -> None:
    context = trace_context.read({"traceparent": GOOD, "tracestate": tracestate})
    assert context.tracestate == tracestate
    state = trace_context.span_context_of(GOOD, tracestate).trace_state
    assert len(state) == len([part for part in tracestate.split(",") if part])


@pytest.mark.parametrize(
    "tracestate",
    [
        "nonsense",
        "A=1",
        "a=1,a=2",
        "a=ü",
        "a=b=c",
        "a=\x00",
        ",".join(f"k{n}=1" for n in range(33)),
        "a=" + "x" * 257,
        ",".join(f"k{n}=" + "x" * 255 for n in range(32)),
        "a=" + "x" * 1_000_000,
    ],
)
def test_a_malformed_or_absurdly_long_tracestate_costs_only_itself(tracestate: str) -> None:
    for fields in (
        {"traceparent": GOOD, "tracestate": tracestate},
        {b"traceparent": GOOD.encode(), b"tracestate": tracestate.encode()},
    ):
        context = trace_context.read(fields)
        assert context == trace_context.IncomingContext(traceparent=GOOD, rejected="tracestate")


def test_a_tracestate_without_traceparent_is_nothing() -> None:
    assert trace_context.read({"tracestate": "a=1"}) == trace_context.NOTHING


@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)))
def test_whatever_the_field_holds_it_is_read_or_rejected(value: bytes) -> None:
    context = trace_context.read({b"traceparent": value, b"tracestate": value})
    assert (context.traceparent or context.rejected) if value else context == trace_context.NOTHING


@given(st.from_regex(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z"))
def test_it_agrees_with_opentelemetrys_own_reader(traceparent: str) -> None:
    theirs = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
    ours = trace_context.read({"traceparent": traceparent})
    assert bool(ours.traceparent) is bool(theirs)
    if theirs:
        read = trace.get_current_span(theirs).get_span_context()
        assert trace_context.span_context_of(ours.traceparent) == read

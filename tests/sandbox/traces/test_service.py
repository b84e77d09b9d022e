"""Spans in over gRPC, out in Jaeger's shape, found by what people search for, and never too many of them."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from sandbox.traces.service import TraceService
from tests.sandbox.traces.conftest import NOON, Batch

if TYPE_CHECKING:
    from tests.sandbox.traces.conftest import Receiver


async def found(receiver: Receiver, **parameters: str) -> list[str]:
    """The ids of the traces a search finds."""
    status, answer = await receiver.ask("/api/traces", service="erni-foto-agency", **parameters)
    assert status == 200, answer
    return [trace["traceID"] for trace in answer["data"]]


async def test_a_trace_comes_out_in_jaegers_shape(receiver: Receiver) -> None:
    batch = Batch(bytes(range(16)))
    batch.span("submit", number=1, start=0, end=0.5, kind="producer", service="upstream")
    span = batch.span(
        "agent_handoff.photo_fetcher",
        number=2,
        parent=1,
        start=1,
        end=3,
        kind="consumer",
        resource={"service.instance.id": "bau-1"},
        attributes={"agent": "photo_fetcher", "n": 2, "f": 0.5, "b": True, "l": ["a", "b"], "raw": b"\xff"},
        error="gone",
    )
    span.trace_state = "vendor=1"
    batch.event(span, "retry", 1.5, {"attempt": 1})
    batch.link(span, bytes(16 * [9]), 7, {"link": "replay_of"})
    await receiver.send(batch)
    trace_id = bytes(range(16)).hex()
    status, answer = await receiver.ask(f"/api/traces/{trace_id}")
    assert status == 200
    assert answer["errors"] is None
    (trace,) = answer["data"]
    assert trace["traceID"] == trace_id
    assert [one["operationName"] for one in trace["spans"]] == ["submit", "agent_handoff.photo_fetcher"]
    assert trace["processes"]["p1"] == {"serviceName": "upstream", "tags": []}
    assert trace["processes"]["p2"] == {
        "serviceName": "erni-foto-agency",
        "tags": [{"key": "service.instance.id", "type": "string", "value": "bau-1"}],
    }
    second = trace["spans"][1]
    assert second["references"] == [
        {"refType": "CHILD_OF", "traceID": trace_id, "spanID": "0000000000000001"},
        {"refType": "FOLLOWS_FROM", "traceID": "09" * 16, "spanID": "0000000000000007"},
    ]
    assert (second["startTime"], second["duration"], second["processID"]) == (
        NOON // 1000 + 1_000_000,
        2_000_000,
        "p2",
    )
    typed = {tag["key"]: (tag["type"], tag["value"]) for tag in second["tags"]}
    assert typed == {
        "agent": ("string", "photo_fetcher"),
        "n": ("int64", 2),
        "f": ("float64", 0.5),
        "b": ("bool", True),
        "l": ("string", "a, b"),
        "raw": ("string", "ff"),
        "span.kind": ("string", "consumer"),
        "otel.status_code": ("string", "ERROR"),
        "otel.status_description": ("string", "gone"),
        "otel.scope.name": ("string", "tests"),
        "w3c.tracestate": ("string", "vendor=1"),
        "error": ("bool", True),
    }
    assert second["logs"] == [
        {
            "timestamp": NOON // 1000 + 1_500_000,
            "fields": [
                {"key": "event", "type": "string", "value": "retry"},
                {"key": "attempt", "type": "int64", "value": 1},
            ],
        }
    ]


async def test_services_and_operations_are_listed(receiver: Receiver) -> None:
    batch = Batch()
    batch.span("submit", number=1, kind="producer", service="upstream")
    batch.span("handle", number=2, kind="consumer")
    await receiver.send(batch)
    assert (await receiver.ask("/api/services"))[1]["data"] == ["erni-foto-agency", "upstream"]
    assert (await receiver.ask("/api/services/upstream/operations"))[1]["data"] == ["submit"]
    assert (await receiver.ask("/api/operations", service="erni-foto-agency"))[1]["data"] == [
        {"name": "handle", "spanKind": "consumer"}
    ]


async def test_a_trace_is_found_by_photo_session_agent_and_error_type(receiver: Receiver) -> None:
    ours, other = Batch(), Batch()
    ours.span(
        attributes={
            "photo.id": "p-1",
            "session.id": "seewen",
            "agent": "photo_fetcher",
            "error.type": "TimeoutError",
            "delivery.count": 2,
        },
        error="no answer",
    )
    other.span(attributes={"photo.id": "p-10", "session.id": "seewen-2", "agent": "photo_fetcher"})
    await receiver.send(ours)
    await receiver.send(other)
    ours_id, other_id = ours.trace_id.hex(), other.trace_id.hex()
    for tags in (
        {"photo.id": "p-1"},
        {"session.id": "seewen"},
        {"agent": "photo_fetcher", "error.type": "TimeoutError"},
        {"error": "true"},
        {"delivery.count": "2", "span.kind": "internal"},
    ):
        assert await found(receiver, tags=json.dumps(tags)) == [ours_id], tags
    assert await found(receiver, tags=json.dumps({"agent": "photo_fetcher"})) == [other_id, ours_id]
    assert await found(receiver, tags=json.dumps({"photo.id": "p"})) == []
    assert await found(receiver, tags="photo.id=p-1 agent=photo_fetcher") == [ours_id]
    assert await found(receiver, tag="photo.id:p-10") == [other_id]


async def test_all_tags_must_stand_on_one_span_its_process_and_events_included(receiver: Receiver) -> None:
    batch = Batch()
    span = batch.span(
        number=1, attributes={"photo.id": "p-1"}, resource={"deployment.environment.name": "bern"}
    )
    batch.event(span, "retry", 0.5, {"wait_seconds": 4.5})
    batch.span(number=2, attributes={"agent": "vision_analyzer"})
    await receiver.send(batch)
    assert await found(receiver, tags="photo.id=p-1 deployment.environment.name=bern wait_seconds=4.5")
    assert not await found(receiver, tags="photo.id=p-1 agent=vision_analyzer")


async def test_a_search_can_ask_for_operation_time_and_duration(receiver: Receiver) -> None:
    slow, fast = Batch(), Batch()
    slow.span("handle", start=100, end=103)
    fast.span("read", start=200, end=200.05)
    await receiver.send(slow)
    await receiver.send(fast)
    slow_id, fast_id = slow.trace_id.hex(), fast.trace_id.hex()
    middle = str(NOON // 1000 + 150_000_000)
    assert await found(receiver, operation="handle") == [slow_id]
    assert await found(receiver, operation="all", limit="1") == [fast_id]
    assert await found(receiver, minDuration="1s") == [slow_id]
    assert await found(receiver, maxDuration="100ms") == [fast_id]
    assert await found(receiver, start=middle) == [fast_id]
    assert await found(receiver, end=middle) == [slow_id]
    _, answer = await receiver.ask("/api/traces", traceID=slow_id)
    assert [trace["traceID"] for trace in answer["data"]] == [slow_id]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "service"),
        ({"service": "x", "tags": "{nonsense"}, "tags: expected a JSON object"),
        ({"service": "x", "tags": '{"a":1}'}, "tags: expected a JSON object"),
        ({"service": "x", "tags": "nonsense"}, "key=value"),
        ({"service": "x", "tag": "nonsense"}, "key:value"),
        ({"service": "x", "limit": "many"}, "limit='many': expected a whole number"),
        ({"service": "x", "start": "9" * 40}, "start="),
        ({"service": "x", "minDuration": "long"}, "such as 1.2s"),
    ],
)
async def test_a_search_that_makes_no_sense_is_told_so(
    receiver: Receiver, parameters: dict[str, str], said: str
) -> None:
    status, answer = await receiver.ask("/api/traces", **parameters)
    assert (status, answer["data"]) == (400, None)
    assert said in answer["errors"][0]["msg"]


async def test_a_trace_that_is_not_there_is_404(receiver: Receiver) -> None:
    status, answer = await receiver.ask("/api/traces/0af7651916cd43dd8448eb211c80319c")
    assert (status, answer["data"], answer["errors"]) == (
        404,
        None,
        [{"code": 404, "msg": "trace not found"}],
    )


async def test_a_span_sent_twice_is_kept_once(receiver: Receiver) -> None:
    batch = Batch()
    batch.span()
    await receiver.send(batch)
    await receiver.send(batch)
    _, answer = await receiver.ask(f"/api/traces/{batch.trace_id.hex()}")
    assert len(answer["data"][0]["spans"]) == 1


async def test_spans_without_ids_are_refused_and_the_others_kept(receiver: Receiver) -> None:
    batch = Batch()
    batch.span(number=1)
    batch.span(number=2).trace_id = b""
    batch.span(number=3).span_id = b"short"
    response = await receiver.send(batch)
    assert response.partial_success.rejected_spans == 2
    _, answer = await receiver.ask(f"/api/traces/{batch.trace_id.hex()}")
    assert len(answer["data"][0]["spans"]) == 1


async def test_the_oldest_traces_make_room(receiver: Receiver) -> None:
    batches = [Batch() for _ in range(100)]
    for batch in batches:
        for number in range(1, 6):
            batch.span(number=number, attributes={"filler": "x" * 500})
        await receiver.send(batch)
    store = receiver.service.store
    assert store.evicted == 100 - len(store)
    assert 20 < len(store) < 60
    assert (await receiver.ask(f"/api/traces/{batches[0].trace_id.hex()}"))[0] == 404
    assert (await receiver.ask(f"/api/traces/{batches[-1].trace_id.hex()}"))[0] == 200


async def test_a_trace_without_end_is_cut_at_ten_thousand_spans() -> None:
    service = TraceService()
    batch = Batch()
    for number in range(1, 10_011):
        batch.span(number=number)
    assert service.store.add(batch.request) == 10


async def test_it_answers_only_to_the_names_of_this_machine(receiver: Receiver) -> None:
    async with (
        aiohttp.ClientSession() as client,
        client.get(receiver.url + "/api/services", headers={"Host": "evil.example"}) as answer,
    ):
        assert answer.status == 403


@pytest.mark.parametrize("which", ["otlp_port", "http_port"])
async def test_a_port_that_is_taken_is_said(which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports: dict[str, Any] = {which: port}
        service = TraceService()
        with pytest.raises(OSError, match=str(port)):
            await service.start(**ports)
        await service.stop()

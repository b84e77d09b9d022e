"""The requests that Jaeger's own page makes (search, trace, architecture) and the answers it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sandbox.traces.conftest import NOON, Batch

if TYPE_CHECKING:
    from tests.sandbox.traces.conftest import Receiver

DAY = {"query.start_time_min": "2026-05-28T00:00:00.000Z", "query.start_time_max": "2026-05-30T00:00:00.000Z"}


def photo() -> Batch:
    batch = Batch(bytes(range(16)))
    batch.span("publish", number=1, parent=9, end=0.5, kind="producer", service="erni-publish")
    fetched = batch.span(
        "agent_handoff.photo_fetcher",
        number=2,
        parent=1,
        start=1,
        end=3,
        kind="consumer",
        service="erni-photo-fetcher",
        attributes={"photo.id": "p-1", "n": 2, "f": 0.5, "b": True},
        error="gone",
    )
    batch.event(fetched, "retry", 1.5, {"attempt": 1})
    batch.link(fetched, bytes(16 * [9]), 7, {"link": "replay_of"})
    for number in (3, 4):
        batch.span("GET", number=number, parent=2, start=2, kind="client", service="erni-photo-fetcher")
    batch.span("handle", number=5, parent=2, start=4, end=5, kind="consumer", service="erni-vision-analyzer")
    return batch


async def test_the_search_page_lists_services_and_operations(receiver: Receiver) -> None:
    await receiver.send(photo())
    names = ["erni-photo-fetcher", "erni-publish", "erni-vision-analyzer"]
    assert await receiver.ask("/api/v3/services") == (200, {"services": names})
    assert await receiver.ask("/api/v3/operations", service="erni-photo-fetcher") == (
        200,
        {
            "operations": [
                {"name": "GET", "spanKind": "client"},
                {"name": "agent_handoff.photo_fetcher", "spanKind": "consumer"},
            ]
        },
    )


async def test_a_search_returns_summaries(receiver: Receiver) -> None:
    batch = photo()
    await receiver.send(batch)
    search = {
        "query.service_name": "erni-photo-fetcher",
        "query.span_name": "agent_handoff.photo_fetcher",
        "query.num_traces": "20",
        "query.duration_min": "1s",
        "query.attributes": '{"photo.id":"p-1"}',
        **DAY,
    }
    status, answer = await receiver.ask("/api/v3/trace-summaries", **search)
    assert (status, answer) == (
        200,
        {
            "summaries": [
                {
                    "traceId": batch.trace_id.hex(),
                    "traceID": batch.trace_id.hex(),
                    "rootServiceName": "erni-publish",
                    "rootOperationName": "publish",
                    "minStartTimeUnixNano": str(NOON),
                    "maxEndTimeUnixNano": str(NOON + 5_000_000_000),
                    "spanCount": 5,
                    "errorSpanCount": 1,
                    "orphanSpanCount": 1,
                    "services": [
                        {"name": "erni-photo-fetcher", "spanCount": 3, "errorSpanCount": 1},
                        {"name": "erni-publish", "spanCount": 1, "errorSpanCount": 0},
                        {"name": "erni-vision-analyzer", "spanCount": 1, "errorSpanCount": 0},
                    ],
                }
            ]
        },
    )
    for change in (
        {"query.attributes": '{"photo.id":"p-2"}'},
        {"query.start_time_min": "2026-05-29T00:00:00.000Z"},
        {"query.service_name": "erni-publish"},
    ):
        assert (await receiver.ask("/api/v3/trace-summaries", **{**search, **change}))[1] == {"summaries": []}
    status, answer = await receiver.ask("/api/v3/trace-summaries", **{"query.start_time_min": "yesterday"})
    assert (status, "expected a time such as" in answer["message"]) == (400, True)


async def test_a_trace_is_otlp_with_hex_ids_and_numbers_as_text(receiver: Receiver) -> None:
    batch = photo()
    await receiver.send(batch)
    status, answer = await receiver.ask(f"/api/v3/traces/{batch.trace_id.hex()}")
    assert status == 200
    groups = answer["result"]["resourceSpans"]
    assert len(groups) == 3
    assert groups[1]["resource"]["attributes"] == [
        {"key": "service.name", "value": {"stringValue": "erni-photo-fetcher"}}
    ]
    assert groups[1]["scopeSpans"][0] == {
        "scope": {"name": "tests"},
        "spans": [
            {
                "traceId": batch.trace_id.hex(),
                "spanId": "0000000000000002",
                "parentSpanId": "0000000000000001",
                "traceState": "",
                "name": "agent_handoff.photo_fetcher",
                "kind": 5,
                "startTimeUnixNano": str(NOON + 1_000_000_000),
                "endTimeUnixNano": str(NOON + 3_000_000_000),
                "attributes": [
                    {"key": "photo.id", "value": {"stringValue": "p-1"}},
                    {"key": "n", "value": {"intValue": "2"}},
                    {"key": "f", "value": {"doubleValue": 0.5}},
                    {"key": "b", "value": {"boolValue": True}},
                ],
                "events": [
                    {
                        "timeUnixNano": str(NOON + 1_500_000_000),
                        "name": "retry",
                        "attributes": [{"key": "attempt", "value": {"intValue": "1"}}],
                    }
                ],
                "links": [
                    {
                        "traceId": "09" * 16,
                        "spanId": "0000000000000007",
                        "attributes": [{"key": "link", "value": {"stringValue": "replay_of"}}],
                    }
                ],
                "status": {"code": 2, "message": "gone"},
            }
        ],
    }
    assert (await receiver.ask("/api/v3/traces", **DAY))[1] == answer
    assert (await receiver.ask("/api/v3/traces/0af7651916cd43dd8448eb211c80319c"))[0] == 404


async def test_the_architecture_page_shows_the_pipeline(receiver: Receiver) -> None:
    await receiver.send(photo())
    calls = [
        {"parent": "erni-photo-fetcher", "child": "erni-vision-analyzer", "callCount": 1},
        {"parent": "erni-publish", "child": "erni-photo-fetcher", "callCount": 1},
    ]
    noon = NOON // 1_000_000
    week = str(7 * 24 * 3_600_000)
    status, answer = await receiver.ask("/api/dependencies", endTs=str(noon + 60_000), lookback=week)
    assert (status, answer["data"], answer["errors"]) == (200, calls, None)
    _, answer = await receiver.ask("/api/dependencies", endTs=str(noon - 60_000), lookback=week)
    assert answer["data"] == []
    assert (await receiver.ask("/api/dependencies", endTs="now"))[0] == 400
    times = {"startTime": DAY["query.start_time_min"], "endTime": DAY["query.start_time_max"]}
    assert await receiver.ask("/api/v3/dependencies", **times) == (200, {"dependencies": calls})

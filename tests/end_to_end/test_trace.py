"""One photo is one trace: from the upstream's own span through five processes, replays included."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from events import topology
from tests.end_to_end import scenario
from tests.end_to_end.system import KEYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.end_to_end.system import System

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

HANDOFFS = [f"agent_handoff.{agent}" for agent in topology.AGENTS]


@pytest.fixture(autouse=True)
def _healed(system: System) -> Iterator[None]:
    yield
    system.heal()


def _upstream(system: System, photo_id: str, session: str, source_url: str) -> tuple[str, str]:
    """Publish a photo as another team's system does, under a span of its own; its trace and span id."""
    provider = TracerProvider(resource=Resource.create({"service.name": "camera-app"}))
    exporter = OTLPSpanExporter(endpoint=system.traces["otlp_endpoint"], insecure=True)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("camera").start_as_current_span("upload") as span:
        context = span.get_span_context()
        trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        data = {"source_url": source_url, "photo_id": photo_id, "session_id": session, "expected": 1}
        system.redis.xadd(
            KEYS.stream("photo.submitted"),
            {"data": json.dumps(data), "traceparent": f"00-{trace_id}-{span_id}-01"},
        )
    provider.shutdown()
    return trace_id, span_id


class Trace:
    """A trace in Jaeger's shape."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.spans: dict[str, dict[str, Any]] = {span["spanID"]: span for span in found["spans"]}
        self._processes = found["processes"]

    def named(self, operation: str) -> list[dict[str, Any]]:
        """The spans of that name, first one first."""
        spans = [span for span in self.spans.values() if span["operationName"] == operation]
        return sorted(spans, key=lambda span: int(span["startTime"]))

    def instance(self, span: dict[str, Any]) -> str:
        """The process a span comes from."""
        tags = self._processes[span["processID"]]["tags"]
        return str(next(tag["value"] for tag in tags if tag["key"] == "service.instance.id"))

    def agent_above(self, span: dict[str, Any]) -> str | None:
        """The agent's span below which a span stands."""
        above = self.spans.get(parent(span) or "")
        if above is None:
            return None
        return above["operationName"] if above["operationName"] in HANDOFFS else self.agent_above(above)


def references(span: dict[str, Any], kind: str) -> list[str]:
    return [one["spanID"] for one in span["references"] if one["refType"] == kind]


def parent(span: dict[str, Any]) -> str | None:
    return next(iter(references(span, "CHILD_OF")), None)


def tags(span: dict[str, Any]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def _trace(system: System, query: str, enough: Callable[[Trace], bool]) -> Trace:
    """The one trace a query finds, once the processes have exported what is looked for."""
    deadline = time.monotonic() + 30
    while True:
        address = urllib.parse.urlsplit(system.traces["url"]).netloc
        with urllib.request.urlopen(f"http://{address}{query}") as answer:  # loopback
            found = json.loads(answer.read())["data"]
        assert len(found) <= 1, "one photo, one trace"
        if found and enough(Trace(found[0])):
            return Trace(found[0])
        assert time.monotonic() < deadline, f"not all spans came: {found}"
        time.sleep(0.2)


def _by_photo(photo_id: str) -> str:
    wanted = urllib.parse.quote(json.dumps({"photo.id": photo_id}))
    return f"/api/traces?service=erni-schema-extractor&tags={wanted}&limit=20"


def test_one_trace_from_the_upstreams_span_through_five_processes(system: System) -> None:
    folder = system.photos / "traced"
    [name] = scenario.pictures(folder, 1, seed="traced")
    system.fault("sharepoint", kind="503", times=1, match="content")
    trace_id, span_id = _upstream(system, "traced-1", "traced", f"file:{folder / name}")
    outcome = system.wait("traced")
    assert [photo.photo_id for photo in outcome.validated] == ["traced-1"]

    trace = _trace(system, _by_photo("traced-1"), lambda t: all(t.named(name) for name in HANDOFFS))
    above = span_id
    instances = set()
    for operation in HANDOFFS:
        [span] = trace.named(operation)
        assert span["traceID"] == trace_id
        assert parent(span) == above, operation
        assert above in references(span, "FOLLOWS_FROM"), "child of the entry's context, and linked to it"
        assert tags(span)["photo.id"] == "traced-1"
        assert tags(span)["session.id"] == "traced"
        instances.add(trace.instance(span))
        above = span["spanID"]
    assert len(instances) == len(HANDOFFS), "each agent is a process of its own"

    calls = [span for span in trace.spans.values() if "http.request.method" in tags(span)]
    by_agent = {trace.agent_above(span) for span in calls}
    assert None not in by_agent, "an outside call that belongs to no agent"
    assert {"agent_handoff.sharepoint_uploader", "agent_handoff.validation_reporter"} <= by_agent
    [uploader] = trace.named("agent_handoff.sharepoint_uploader")
    retries = [
        {field["key"]: field["value"] for field in log["fields"]}
        for log in uploader["logs"]
        if any(field["value"] == "retry" for field in log["fields"])
    ]
    assert [retry["attempt"] for retry in retries] == [1], "why it took so long"
    assert 4 <= float(retries[0]["wait_seconds"]) <= 10

    # by id it is the same trace, and the upstream's span is its root
    whole = _trace(system, f"/api/traces/{trace_id}", lambda t: span_id in t.spans)
    assert parent(whole.spans[span_id]) is None
    _every_log_line_is_in_the_trace(system, "traced-1", whole)


def _every_log_line_is_in_the_trace(system: System, photo_id: str, trace: Trace) -> None:
    lines = 0
    for agent in topology.AGENTS:
        for line in system.log(agent).splitlines():
            if f'"photo_id":"{photo_id}"' in line:
                said = json.loads(line)
                assert said["span_id"] in trace.spans, line
                assert trace.spans[said["span_id"]]["traceID"] == said["trace_id"]
                lines += 1
    assert lines >= len(topology.AGENTS)


def test_a_replay_goes_on_in_the_trace_and_links_to_the_span_that_failed(system: System) -> None:
    folder = system.photos / "late"
    [name] = scenario.pictures(folder, 1, seed="late")
    (folder / name).rename(folder / "elsewhere")
    trace_id, _ = _upstream(system, "late-1", "late", f"file:{folder / name}")
    assert [letter.reason for letter in system.wait("late").dead] == ["permanent"]
    (folder / "elsewhere").rename(folder / name)
    system.erni("dead", "replay", "--session", "late")
    outcome = system.wait("late")
    assert [photo.photo_id for photo in outcome.validated] == ["late-1"]

    # each process sends its spans when it likes: the second look of the fetcher may come last
    fetched = "agent_handoff.photo_fetcher"
    trace = _trace(
        system,
        _by_photo("late-1"),
        lambda t: all(t.named(name) for name in HANDOFFS) and len(t.named(fetched)) > 1,
    )
    failed, again = trace.named(fetched)
    assert {span["traceID"] for span in trace.spans.values()} == {trace_id}
    assert parent(failed) == parent(again)
    assert failed["spanID"] in references(again, "FOLLOWS_FROM")
    assert tags(failed)["outcome"] == "dead"
    assert tags(again)["outcome"] == "done"
    [analyzer] = trace.named("agent_handoff.vision_analyzer")
    assert parent(analyzer) == again["spanID"]

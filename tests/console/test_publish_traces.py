"""The span of a publish and that of the agent name the same destination, so that a graph joins the two."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from console.photo_files import PhotoFile
from console.publishing import Batch, BatchPublisher
from events.connection import connect
from events.identities import SessionId
from shared.photo_store import BlobStore
from shared.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.leaves_keys("erni:*")


@pytest.mark.parametrize("lanes", [1, 4])
async def test_the_destination_is_the_stream_that_the_entry_is_in(
    redis_url: str, tmp_path: Path, lanes: int
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    settings = Settings(redis_url=redis_url, lanes=lanes)
    redis = connect(redis_url)
    publisher = BatchPublisher(redis, BlobStore(str(tmp_path)), settings, source="test")
    photo = PhotoFile(name="a.jpg", url="https://example.org/a.jpg")
    tracer = provider.get_tracer("test")
    await publisher.publish([photo], Batch(session_id=SessionId("seewen")), tracer=tracer)
    (sent,) = [span for span in spans.get_finished_spans() if span.name == "publish photo.submitted"]
    assert sent.attributes is not None
    assert await redis.xlen(str(sent.attributes["messaging.destination.name"])) == 1
    server = urlsplit(redis_url)
    assert sent.attributes["server.address"] == server.hostname
    assert sent.attributes["server.port"] == server.port
    await redis.aclose()

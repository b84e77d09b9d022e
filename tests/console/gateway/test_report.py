"""GET /v1/sessions/ID/report: the page that the completion wrote, safe in a browser; its lists as JSON."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from events import asyncapi, codec
from events.connection import call
from events.identities import SessionId
from events.types import SessionReported
from shared.photo_store import BlobStore
from shared.reports.facts import SessionFacts
from shared.reports.session_report import report_key, write_session_report
from tests.console.gateway.conftest import Client, event, key_of
from tests.events.samples import sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from redis.asyncio import Redis

    from shared.settings import Settings

AT = "/v1/sessions/s1/report"


async def written(settings: Settings) -> None:
    store = BlobStore(settings.photo_store_url)
    await write_session_report(store, SessionFacts(session_id=SessionId("s1"), completion=1), [])


async def reported(redis: Redis, session: str = "s1") -> None:
    whole = msgspec.structs.replace(sample("session.reported"), session_id=session)
    fields = codec.encode(whole, event_id="r", source="erni", session_id=session)
    await call(redis, "XADD", "erni:session.reported", "*", *fields)


async def test_the_page_is_served_as_it_was_written_and_once(client: Client, settings: Settings) -> None:
    await client.publish(event())
    await written(settings)
    answer = await client.ask("GET", AT)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.body.startswith(b"<!DOCTYPE html>") or answer.body.startswith(b"<!doctype html>")
    again = await client.ask("GET", AT, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    await written(settings)  # the time is in it
    changed = await client.ask("GET", AT, headers={"If-None-Match": '"another"'})
    assert changed.status == 200


async def test_the_page_has_no_origin_and_stands_in_no_frame(client: Client, settings: Settings) -> None:
    await client.publish(event())
    await written(settings)
    headers = (await client.ask("GET", AT)).headers
    policy = headers["Content-Security-Policy"]
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "private" in headers["Cache-Control"]


async def test_its_lists_come_as_json_to_who_asks_for_them(client: Client, redis: Redis) -> None:
    await client.publish(event())
    await reported(redis, "other")
    await reported(redis)
    asked = {"Accept": "application/json"}
    answer = await client.ask("GET", AT, headers=asked)
    assert answer.status == 200
    found = msgspec.convert(answer.document, SessionReported)
    assert (found.session_id, found.validated, found.dead) == ("s1", 2, 1)
    assert answer.headers["Vary"] == "Accept"
    again = await client.ask("GET", AT, headers={**asked, "If-None-Match": answer.headers["ETag"]})
    assert again.status == 304
    # a browser takes both and wants the page
    both = {"Accept": "text/html,application/xhtml+xml,application/json;q=0.9"}
    assert (await client.ask("GET", AT, headers=both)).status == 404


async def test_without_one_it_is_404_that_says_how_long_it_is_kept(
    client: Client, served: Callable[..., AbstractAsyncContextManager[Client]], settings: Settings
) -> None:
    await client.publish(event())
    for accept in ("text/html", "application/json"):
        answer = await client.ask("GET", AT, headers={"Accept": accept})
        assert (answer.status, answer.problem) == (404, "not-found")
        assert "it is kept until it is forgotten" in answer.detail
    kept = msgspec.structs.replace(settings, store_retention_days=90)
    async with served(kept, name="another") as other:
        answer = await other.ask("GET", AT)
        assert "for 90 days (STORE_RETENTION_DAYS)" in answer.detail
    answer = await client.ask("GET", "/v1/sessions/a%2Fb/report")
    assert (answer.status, answer.problem) == (400, "bad-request")


async def test_a_publisher_sees_the_reports_of_its_own_sessions_only(
    client: Client, redis: Redis, settings: Settings
) -> None:
    await client.publish(event())
    await written(settings)
    await reported(redis)
    mine = client.key
    client.key = await key_of(redis, "publisher", name="other", source="urn:other")
    for accept in ("text/html", "application/json"):
        foreign = await client.ask("GET", AT, headers={"Accept": accept})
        unknown = await client.ask("GET", AT.replace("s1", "s9"), headers={"Accept": accept})
        assert (foreign.status, foreign.problem) == (404, "not-found")
        assert foreign.detail == unknown.detail.replace("s9", "s1")
    for key in (mine, await key_of(redis, "viewer")):
        client.key = key
        assert (await client.ask("GET", AT)).status == 200


async def test_a_store_that_does_not_work_is_503(client: Client, settings: Settings) -> None:
    await client.publish(event())
    await written(settings)
    store = BlobStore(settings.photo_store_url)
    path = store.url.removeprefix("file://") + "/" + report_key(SessionId("s1"))
    # a link that leads to itself: it cannot be read, and it is not missing
    await asyncio.to_thread(_in_the_way, path)
    answer = await client.ask("GET", AT)
    assert (answer.status, answer.problem) == (503, "store-away")
    assert answer.headers["Retry-After"] == "15"


def _in_the_way(path: str) -> None:
    from pathlib import Path

    Path(path).unlink()
    Path(path).symlink_to(path)


async def test_the_asyncapi_document_is_served_to_everybody(client: Client) -> None:
    client.key = ""
    answer = await client.ask("GET", "/v1/asyncapi.json")
    assert (answer.status, answer.body.decode()) == (200, asyncapi.text())

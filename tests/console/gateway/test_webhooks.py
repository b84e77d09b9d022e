"""`GET /v1/webhooks`: how deliveries go, for people and for the publisher whose web hooks they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.operations import webhooks
from tests.console.gateway.conftest import SOURCE, Client, key_of
from tests.console.webhook_notices import POSTPONED, notice

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.settings import Settings


async def test_a_web_hook_says_how_it_does_and_when_the_next_try_is(
    client: Client, redis: Redis, settings: Settings
) -> None:
    url = "https://hooks.example.org/in/secret-path?token=1"
    mine = (await webhooks.add(redis, settings, url, source=SOURCE)).endpoint
    other = (await webhooks.add(redis, settings, "https://example.net/", source="urn:other")).endpoint
    failing: dict[Any, Any] = {"failing_since": "1780000000.000", "error": "the endpoint answered 500"}
    await redis.hset(f"erni:{{webhooks}}:{mine.id}", mapping=failing)
    await redis.zadd(POSTPONED, {notice(mine.id): 1_780_000_100_000})
    answer = await client.ask("GET", "/v1/webhooks")
    assert answer.status == 200
    assert b"secret-path" not in answer.body
    assert mine.secret.encode() not in answer.body
    [shown] = answer.document["webhooks"]
    assert shown == {
        "id": mine.id,
        "host": "https://hooks.example.org",
        "source": SOURCE,
        "events": ["photo.validated", "photo.failed", "session.reported"],
        "state": "failing",
        "created_at": mine.created_at,
        "delivered_at": None,
        "failing_since": 1_780_000_000.0,
        "next_try_at": 1_780_000_100.0,
        "off_since": None,
        "error": "the endpoint answered 500",
    }
    client.key = await key_of(redis, "viewer")
    listed = (await client.ask("GET", "/v1/webhooks")).document["webhooks"]
    assert [one["id"] for one in listed] == [mine.id, other.id]


async def test_a_web_hook_that_cannot_be_read_is_named(
    client: Client, redis: Redis, settings: Settings
) -> None:
    mine = (await webhooks.add(redis, settings, "https://example.net/", source=SOURCE)).endpoint
    await redis.hset(f"erni:{{webhooks}}:{mine.id}", "signature", "v9")
    answer = await client.ask("GET", "/v1/webhooks")
    assert (answer.status, answer.problem) == (500, "internal-error")
    assert mine.id in answer.detail

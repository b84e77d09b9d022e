"""Which endpoints are registered, and what becomes of one that several people change at the same moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from events.connection import connect
from shared.operations import webhooks
from shared.settings import Settings
from shared.webhooks import endpoints
from shared.webhooks.subscriptions import INDEX
from tests.shared.webhooks.receiver import hook_settings, register

if TYPE_CHECKING:
    from redis.asyncio import Redis


@pytest.fixture
async def endpoint(redis_url: str) -> endpoints.Endpoint:
    async with connect(redis_url) as redis:
        return (await webhooks.add(redis, Settings(), "https://hooks.example.org/", source="urn:a")).endpoint


async def test_of_two_who_rotate_at_once_one_is_refused(endpoint: endpoints.Endpoint, redis_url: str) -> None:
    async with connect(redis_url) as redis:
        first, second = (
            msgspec.structs.replace(endpoint, secret=secret, old_secret=endpoint.secret, old_until=9e9)
            for secret in ("whsec_first", "whsec_second")
        )
        assert await endpoints.rotated(redis, endpoint, first)
        assert not await endpoints.rotated(redis, endpoint, second)
        found = await endpoints.find(redis, endpoint.id)
    assert found
    assert found.secrets(0.0) == ("whsec_first", endpoint.secret)


async def test_a_rotation_switches_nothing_on(endpoint: endpoints.Endpoint, redis_url: str) -> None:
    async with connect(redis_url) as redis:
        await endpoints.failed(redis, endpoint, "it answered 410", gone=True)
        # whoever rotates has read it before that
        changed = msgspec.structs.replace(endpoint, secret="whsec_new", old_secret=endpoint.secret)
        assert await endpoints.rotated(redis, endpoint, changed)
        assert await redis.hget(INDEX, endpoint.id) == b""
        found = await endpoints.find(redis, endpoint.id)
    assert found
    assert found.state == "off"


async def test_what_was_removed_meanwhile_stays_removed(endpoint: endpoints.Endpoint, redis_url: str) -> None:
    async with connect(redis_url) as redis:
        assert await endpoints.drop(redis, endpoint.id)
        assert not await endpoints.rotated(redis, endpoint, endpoint)
        assert not await endpoints.switch_on(redis, endpoint)
        assert not await redis.exists(INDEX, endpoints.key_of(endpoint.id))


@pytest.mark.parametrize("value", [b"v7", b"\xff"])
async def test_one_that_cannot_be_read_is_said_and_not_taken_for_removed(
    endpoint: endpoints.Endpoint, redis_url: str, value: bytes
) -> None:
    async with connect(redis_url) as redis:
        await redis.hset(endpoints.key_of(endpoint.id), "signature", value)
        with pytest.raises(endpoints.UnreadableEndpointError, match=f"erni webhook remove {endpoint.id}"):
            await endpoints.find(redis, endpoint.id)


async def test_those_that_are_off_count_too(redis_url: str) -> None:
    async with connect(redis_url) as redis:
        for number in range(webhooks.MOST_PER_SOURCE):
            added = await webhooks.add(
                redis, Settings(), f"https://hooks.example.org/{number}", source="urn:a"
            )
            await endpoints.failed(redis, added.endpoint, "it answered 410", gone=True)
        with pytest.raises(webhooks.InvalidWebhookError, match="more are not possible"):
            await webhooks.add(redis, Settings(), "https://hooks.example.org/", source="urn:a")


@pytest.mark.leaves_keys(r"erni:.*")
@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("ftp://example.org/x", "needs an http"),
        ("not an address", "needs an http"),
        ("https://example.org:99999/", "needs an http"),
        ("https://user:secret@example.org/", "no user and no password"),
        ("https://example.org/" + "x" * 2000, "at most 2000 characters"),
        ("http://127.0.0.1:8080/", "not public"),
        ("http://[::1]/", "not public"),
        ("http://169.254.169.254/latest/meta-data", "not public"),
        ("http://localhost/", "not public"),
        ("http://example.org:6379/", "port 6379 is another service's"),
    ],
)
async def test_an_address_that_cannot_be_used_is_refused_when_it_is_registered(
    redis: Redis, redis_url: str, url: str, sentence: str
) -> None:
    with pytest.raises(webhooks.InvalidWebhookError, match=sentence) as caught:
        await register(redis, hook_settings(redis_url, webhook_hosts=()), url)
    assert "secret" not in str(caught.value)
    assert await webhooks.all_webhooks(redis) == []


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"events": ["photo.lost"]}, "'photo.lost' is no event that a web hook can want"),
        ({"events": []}, "no event is named"),
        ({"source": "a b"}, "no URI reference"),
    ],
)
async def test_a_web_hook_that_cannot_be_is_refused(
    redis: Redis, redis_url: str, more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(webhooks.InvalidWebhookError, match=sentence):
        await register(redis, hook_settings(redis_url), "https://example.org/", **more)


async def test_a_source_has_a_bounded_number_of_web_hooks(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    for number in range(webhooks.MOST_PER_SOURCE):
        await register(redis, settings, f"https://example.org/{number}")
    with pytest.raises(webhooks.InvalidWebhookError, match="has 10 web hooks already"):
        await register(redis, settings, "https://example.org/more")
    await register(redis, settings, "https://example.org/", source="urn:other")

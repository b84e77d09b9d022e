"""A web hook whose certificate this machine does not trust is tried again, and says what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.consumers.test_webhook_notifier import (
    DEAD,
    DELAYED,
    attempts,
    come_back,
    empty,
    endpoint_of,
    ids,
    notifier,
    queue,
)
from tests.shared.delivery.harness import until
from tests.shared.sharepoint.certificates import self_signed
from tests.shared.webhooks.receiver import hook_settings, notifying, receiving, register

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

REMEDY = "the receiver needs another one, or the notifier its authority (SSL_CERT_FILE)"


async def test_an_untrusted_certificate_is_tried_again_and_its_breaker_holds_the_others(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    settings = hook_settings(redis_url)
    async with receiving(self_signed(tmp_path / "pem")) as receiver, notifying(settings):
        endpoint = (await register(redis, settings, receiver.url)).endpoint
        await queue(redis, endpoint, *(f"id-{number}" for number in range(40)))

        async def all_wait() -> bool:
            return await redis.zcard(DELAYED) == 40 and await empty(redis)

        await until(all_wait)
    assert receiver.got == []
    assert await redis.xlen(DEAD) == 0
    numbers = [number for number, _ in await attempts(redis)]
    assert 5 <= numbers.count(1) < 40
    assert numbers.count(0) == 40 - numbers.count(1)
    found = await endpoint_of(redis, endpoint)
    assert found.state == "failing"
    assert found.error == (
        f"this machine does not trust the endpoint's certificate (self-signed certificate): {REMEDY}"
    )


@pytest.mark.leaves_keys(r"erni:system")
async def test_an_own_authority_is_trusted_and_the_host_name_is_still_compared(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    settings = hook_settings(redis_url)
    ours = self_signed(tmp_path / "ours.pem")
    other = self_signed(tmp_path / "other.pem", host="hooks.example.org")
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes(ours.read_bytes() + other.read_bytes())
    async with receiving(ours) as right, receiving(other) as wrong:
        of_right = (await register(redis, settings, right.url)).endpoint
        of_wrong = (await register(redis, settings, wrong.url)).endpoint
        async with notifier(redis_url, SSL_CERT_FILE=str(authorities)):
            await queue(redis, of_right, "id-1")
            await queue(redis, of_wrong, "id-2")
            await right.wait(1, seconds=60)
            await until(lambda: redis.zcard(DELAYED), seconds=60)
            # the name is put right: the notice comes by itself
            await redis.hset(f"erni:{{webhooks}}:{of_wrong.id}", "url", right.url)
            before = await endpoint_of(redis, of_wrong)
            await come_back(redis)
            await right.wait(2, seconds=60)
    assert sorted(ids(right.got)) == ["id-1", "id-2"]
    assert wrong.got == []
    assert "certificate is not valid for '127.0.0.1'" in before.error
    assert before.error.endswith(REMEDY)

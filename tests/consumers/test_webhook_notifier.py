"""Notices are delivered, signed, at least once, whatever the endpoints do; none is made up."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from events import codec, topology
from events.connection import call, connect
from events.types import WebhookQueued
from shared.delivery import packing
from shared.operations import webhooks
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.retry import breaker
from shared.webhooks import endpoints, signature
from tests.shared.delivery.harness import until
from tests.shared.webhooks.receiver import (
    HOST,
    Got,
    Receiver,
    hook_settings,
    notifying,
    receiving,
    register,
    says,
)
from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from redis.asyncio import Redis

    from shared.delivery.dead_letter import DeadLetter
    from shared.settings import Settings
    from shared.webhooks.endpoints import Endpoint

OUTBOX = "erni:webhook.queued"
DEAD = "erni:dead:webhook_notifier"
DELAYED = "erni:delayed:webhook_notifier"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BODY = '{"type":"photo.failed","timestamp":"2026-11-28T10:00:00.000Z","data":{"photo_id":"p-1"}}'


async def queue(redis: Redis, endpoint: Endpoint | str, *ids: str) -> None:
    """Queue notices as a settlement does."""
    name = endpoint if isinstance(endpoint, str) else endpoint.id
    for event_id in ids:
        fields: list[Any] = codec.encode(
            WebhookQueued(endpoint=name, body=BODY),
            event_id=event_id,
            source=f"erni:webhook:{name}",
            photo_id="p-1",
            session_id="s-1",
            traceparent=TRACE,
        )
        await redis.execute_command("XADD", OUTBOX, "*", *fields)  # type: ignore[no-untyped-call]  # redis-py's types


async def endpoint_of(redis: Redis, endpoint: Endpoint) -> Endpoint:
    found = await endpoints.find(redis, endpoint.id)
    assert found is not None
    return found


async def letters(redis_url: str) -> list[DeadLetter]:
    async with connect(redis_url) as client:
        found = DeadLetters(client).find(DeadFilter(agent="webhook_notifier"))
        return [letter async for letter in found]


async def empty(redis: Redis) -> bool:
    return await redis.xlen(OUTBOX) == 0


async def waiting(redis: Redis) -> list[tuple[bytes, float]]:
    """What is postponed, and the Unix seconds when it is due."""
    flat = await call(redis, "ZRANGE", DELAYED, 0, -1, "WITHSCORES")
    return [(member, float(due) / 1000) for member, due in zip(flat[::2], flat[1::2], strict=True)]


async def come_back(redis: Redis) -> None:
    """Make what is postponed due now."""
    for member, _ in await waiting(redis):
        await call(redis, "ZADD", DELAYED, "XX", 1, member)


async def attempts(redis: Redis) -> list[tuple[int, float]]:
    """How often each notice that waits was tried, and when it is due."""
    # ernidelayed: first postponement, deliveries, attempts
    return [(int(packing.unpack(member)[2].split(b":")[2]), due) for member, due in await waiting(redis)]


async def postponed_after(redis: Redis, number: int) -> float:
    """When the notice is due that was tried so many times; 0 if none waits."""
    return next((due for tried, due in await attempts(redis) if tried == number), 0.0)


async def tried_again(redis: Redis, receiver: Receiver, number: int) -> bool:
    """Whether more requests than that came; what waits is due now."""
    if len(receiver.got) > number:
        return True
    await come_back(redis)
    return False


def ids(got: Iterable[Got]) -> list[str]:
    return [one.id for one in got]


async def test_a_notice_is_posted_with_the_headers_of_standard_webhooks(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    async with receiving() as receiver, notifying(settings):
        registered = await register(redis, settings, f"{receiver.url}/hooks?tenant=%7E1")
        await queue(redis, registered.endpoint, "id-1")
        [got] = await receiver.wait(1)
        await until(lambda: empty(redis))
    assert got.body.decode() == BODY
    assert got.id == "id-1"
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 10
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-signature"] == signature.header(
        [registered.verify_with],
        message_id="id-1",
        timestamp=int(got.headers["webhook-timestamp"]),
        body=got.body,
    )
    assert (await endpoint_of(redis, registered.endpoint)).delivered_at > 0
    assert await redis.xlen(DEAD) == 0


async def test_the_trace_of_the_photo_goes_on(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    async with receiving() as receiver, notifying(settings):
        await queue(redis, (await register(redis, settings, receiver.url)).endpoint, "id-1")
        [got] = await receiver.wait(1)
    assert got.headers["traceparent"].split("-")[1] == TRACE.split("-")[1]


async def test_v1a_is_verified_with_the_public_key_that_was_printed(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    async with receiving() as receiver, notifying(settings):
        registered = await register(redis, settings, receiver.url, signed="v1a")
        await queue(redis, registered.endpoint, "id-1")
        [got] = await receiver.wait(1)
    assert registered.verify_with.startswith("whpk_")
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(registered.verify_with.removeprefix("whpk_")))
    version, signed = got.headers["webhook-signature"].split(",")
    assert version == "v1a"
    key.verify(base64.b64decode(signed), f"id-1.{got.headers['webhook-timestamp']}.{BODY}".encode())


async def test_a_rotation_signs_with_both_secrets_for_a_day(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    async with receiving() as receiver, notifying(settings):
        old = await register(redis, settings, receiver.url)
        new = await webhooks.rotate(redis, old.endpoint.id)
        assert new is not None
        await queue(redis, old.endpoint, "id-1")
        [got] = await receiver.wait(1)
        with pytest.raises(webhooks.InvalidWebhookError, match="still counts for 24 h"):
            await webhooks.rotate(redis, old.endpoint.id)
    when = int(got.headers["webhook-timestamp"])
    assert got.headers["webhook-signature"].split(" ") == [
        signature.header([one.verify_with], message_id="id-1", timestamp=when, body=got.body)
        for one in (new, old)
    ]
    later = time.time() + webhooks.OLD_SECRET_SECONDS + 1
    assert (await endpoint_of(redis, old.endpoint)).secrets(later) == (new.verify_with,)


async def test_a_failed_delivery_comes_back_by_the_schedule_under_the_same_id(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the breaker opens on the way, and its probes come late
    monkeypatch.setattr(breaker, "FIRST_PROBE", 0.05)
    monkeypatch.setattr(breaker, "LONGEST_PROBE", 0.05)
    settings = hook_settings(redis_url)
    assert topology.NOTIFIER.schedule is not None
    async with receiving() as receiver, notifying(settings):
        receiver.answers["/"] = says(500)
        endpoint = (await register(redis, settings, receiver.url + "/")).endpoint
        await queue(redis, endpoint, "id-1")
        for number, delay in enumerate(topology.NOTIFIER.schedule.delays, start=1):
            await receiver.wait(number)
            due = await until(partial(postponed_after, redis, number))
            assert 0.9 * delay - 1 <= due - time.time() <= 1.1 * delay + 1
            if number == 1:
                # webhook-timestamp has whole seconds, and all attempts may fit into one
                await asyncio.sleep(1.0 - time.time() % 1.0)
            await until(partial(tried_again, redis, receiver, number))
        await until(lambda: redis.xlen(DEAD))
    assert ids(receiver.got) == ["id-1"] * 8
    assert len({got.headers["webhook-timestamp"] for got in receiver.got}) > 1
    [letter] = await letters(redis_url)
    assert (letter.reason, letter.message) == ("exhausted", "the endpoint answered 500")
    # it is no photo: none of its records and counters moved
    assert (letter.photo_id, letter.session_id) == (None, None)
    left = {key.decode().partition("erni:")[2] for key in await call(redis, "KEYS", "*")}
    assert not {name for name in left if name.startswith(("photo", "session"))}


async def test_a_dead_notice_is_replayed_under_its_id_when_the_endpoint_works_again(
    redis: Redis, redis_url: str
) -> None:
    settings = hook_settings(redis_url)
    async with receiving() as receiver, notifying(settings):
        endpoint = (await register(redis, settings, receiver.url + "/")).endpoint
        receiver.answers["/"] = says(410)
        await queue(redis, endpoint, "id-1")
        await until(lambda: redis.xlen(DEAD))
        assert (await endpoint_of(redis, endpoint)).state == "off"
        # what was queued before the agents knew waits for a person, too
        await queue(redis, endpoint, "id-2")
        await until(lambda: _length(redis, DEAD, 2))
        assert len(receiver.got) == 1
        del receiver.answers["/"]
        assert await webhooks.enable(redis, endpoint.id)
        async with connect(redis_url) as client:
            desk = DeadLetters(client)
            letters = [letter async for letter in desk.find(DeadFilter(agent="webhook_notifier"))]
            replayed = [(await desk.replay(letter)).outcome for letter in letters]
        assert replayed == ["replayed", "replayed"]
        got = await receiver.wait(3)
        await until(lambda: empty(redis))
    assert sorted(ids(got)) == ["id-1", "id-1", "id-2"]
    assert (await endpoint_of(redis, endpoint)).state == "on"


async def _length(redis: Redis, stream: str, wanted: int) -> bool:
    return bool(await redis.xlen(stream) == wanted)


async def test_410_switches_an_endpoint_off_for_the_agents(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    async with receiving() as receiver, notifying(settings):
        receiver.answers["/"] = says(410)
        endpoint = (await register(redis, settings, receiver.url + "/")).endpoint
        await queue(redis, endpoint, "id-1")
        await until(lambda: redis.xlen(DEAD))
    found = await endpoint_of(redis, endpoint)
    assert (found.state, found.off_reason) == ("off", "the endpoint answered 410: it wants no more notices")
    assert await redis.hget("erni:{webhooks}", endpoint.id) == b""


async def test_five_days_of_failures_switch_an_endpoint_off(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    async with receiving() as receiver, notifying(settings):
        receiver.answers["/"] = says(503)
        endpoint = (await register(redis, settings, receiver.url + "/")).endpoint
        key = endpoints.key_of(endpoint.id)
        await queue(redis, endpoint, "id-1")
        await until(lambda: redis.zcard(DELAYED))
        assert (await endpoint_of(redis, endpoint)).state == "failing"
        for days, state in ((4.9, "failing"), (5.1, "off")):
            await redis.hset(key, "failing_since", str(time.time() - days * 86_400))
            before = len(receiver.got)
            await come_back(redis)
            await receiver.wait(before + 1)

            async def noted() -> bool:
                return await redis.zcard(DELAYED) == 1 and await empty(redis)

            await until(noted)
            assert (await endpoint_of(redis, endpoint)).state == state
    found = await endpoint_of(redis, endpoint)
    assert found.off_reason == "every delivery has failed for 5 days: the endpoint answered 503"


async def test_a_delivery_ends_the_count_of_failures(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    async with receiving() as receiver, notifying(settings):
        receiver.answers["/"] = says(503)
        endpoint = (await register(redis, settings, receiver.url + "/")).endpoint
        await queue(redis, endpoint, "id-1")
        await until(lambda: redis.zcard(DELAYED))
        del receiver.answers["/"]
        await come_back(redis)
        await receiver.wait(2)

        async def well() -> bool:
            return (await endpoint_of(redis, endpoint)).state == "on"

        await until(well)


async def test_a_longer_wait_that_the_endpoint_asks_for_is_kept(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    async with receiving() as receiver, notifying(settings):
        receiver.answers["/"] = says(429, {"Retry-After": "900"})
        await queue(redis, (await register(redis, settings, receiver.url + "/")).endpoint, "id-1")
        await until(lambda: redis.zcard(DELAYED))
        [(_, due)] = await waiting(redis)
    assert 890 <= due - time.time() <= 1000


async def test_a_redirect_is_not_followed(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    async with receiving() as receiver, notifying(settings):
        receiver.answers["/"] = says(302, {"Location": f"{receiver.url}/elsewhere"})
        endpoint = (await register(redis, settings, receiver.url + "/")).endpoint
        await queue(redis, endpoint, "id-1")
        await until(lambda: redis.zcard(DELAYED))
    assert [got.path for got in receiver.got] == ["/"]
    assert "register the address that it leads to" in (await endpoint_of(redis, endpoint)).error


async def test_an_endpoint_that_hangs_is_given_up_and_stops_no_other(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url, webhook_timeout=1.0, concurrency=4)
    over = asyncio.Event()

    async def hangs(_: Got) -> web.StreamResponse:
        await over.wait()
        return web.Response(status=204)

    async with receiving() as receiver, notifying(settings):
        receiver.answers["/hangs"] = hangs
        dead = (await register(redis, settings, f"{receiver.url}/hangs")).endpoint
        well = (await register(redis, settings, f"{receiver.url}/well")).endpoint
        await queue(redis, dead, *(f"dead-{number}" for number in range(100)))
        await queue(redis, well, *(f"well-{number}" for number in range(50)))
        got = await receiver.wait(50, "/well")

        async def all_wait() -> bool:
            return await redis.zcard(DELAYED) == 100

        await until(all_wait)
        tried = len(await receiver.wait(1, "/hangs"))
        over.set()
    assert sorted(ids(got)) == sorted(f"well-{number}" for number in range(50))
    # a breaker held the others back, and none was lost
    assert tried < 20
    assert (await endpoint_of(redis, dead)).error == "no answer in time"


async def _forty_wait(redis: Redis, settings: Settings, receiver: Receiver) -> Endpoint:
    """Forty notices for an endpoint that fails, all of them postponed."""
    receiver.answers["/"] = says(500)
    endpoint = (await register(redis, settings, receiver.url + "/")).endpoint
    await queue(redis, endpoint, *(f"id-{number}" for number in range(40)))

    async def all_wait() -> bool:
        return await redis.zcard(DELAYED) == 40 and await empty(redis)

    await until(all_wait)
    return endpoint


async def test_a_notice_that_waits_for_a_broken_endpoint_uses_up_no_attempt(
    redis: Redis, redis_url: str
) -> None:
    settings = hook_settings(redis_url)
    async with receiving() as receiver, notifying(settings):
        await _forty_wait(redis, settings, receiver)
    tried = ids(receiver.got)
    assert len(tried) < 40
    numbers = sorted(number for number, _ in await attempts(redis))
    assert numbers == [0] * (40 - len(tried)) + [1] * len(tried)


async def test_a_private_address_is_refused_at_the_socket(redis: Redis, redis_url: str) -> None:
    allowing = hook_settings(redis_url)
    async with receiving() as receiver, notifying(hook_settings(redis_url, webhook_hosts=())):
        endpoint = (await register(redis, allowing, receiver.url)).endpoint
        await queue(redis, endpoint, "id-1")
        await until(lambda: redis.xlen(DEAD))
    assert receiver.got == []
    [letter] = await letters(redis_url)
    assert letter.reason == "permanent"
    assert letter.message == (
        "nothing is posted there: the host has an address that is not public; if it is trusted, name the host"
        f" itself in WEBHOOK_HOSTS ({HOST})"
    )


async def test_the_notice_of_a_removed_web_hook_ends_in_silence(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    async with receiving() as receiver, notifying(settings):
        endpoint = (await register(redis, settings, receiver.url)).endpoint
        assert await webhooks.remove(redis, endpoint.id)
        assert not await webhooks.remove(redis, endpoint.id)
        await queue(redis, endpoint, "id-1")
        await until(lambda: empty(redis))
    assert receiver.got == []
    assert await redis.xlen(DEAD) == 0
    assert not await redis.exists("erni:{webhooks}", endpoints.key_of(endpoint.id))


@asynccontextmanager
async def notifier(redis_url: str, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The notifier as a process of its own; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "consumers",
        "webhook_notifier",
        cwd=ROOT,
        env={
            **os.environ,
            "REDIS_URL": redis_url,
            "WEBHOOK_HOSTS": HOST,
            "METRICS_PORT": "0",
            "ENABLE_TRACING": "false",
            "LEASE_SECONDS": "1",
            **more,
        },
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.leaves_keys(r"erni:system")
async def test_kill_9_in_the_middle_loses_no_notice_and_makes_none_up(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    wanted = [f"id-{number}" for number in range(60)]

    async def slowly(_: Got) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return web.Response(status=204)

    async with receiving() as receiver:
        receiver.answers["/"] = slowly
        endpoint = (await register(redis, settings, receiver.url + "/")).endpoint
        await queue(redis, endpoint, *wanted)
        async with notifier(redis_url) as first:
            await receiver.wait(20, seconds=40)
            first.send_signal(signal.SIGKILL)
            await first.wait()
        assert not await empty(redis)
        async with notifier(redis_url) as second:
            await until(lambda: empty(redis), seconds=40)
            second.terminate()
            assert await second.wait() == 0
    assert set(ids(receiver.got)) == set(wanted)
    assert await redis.xlen(DEAD) == 0
    assert await redis.zcard(DELAYED) == 0


async def test_the_notices_of_a_broken_web_hook_that_was_removed_go_at_once(
    redis: Redis, redis_url: str
) -> None:
    settings = hook_settings(redis_url)
    async with receiving() as receiver, notifying(settings):
        endpoint = await _forty_wait(redis, settings, receiver)
        await webhooks.remove(redis, endpoint.id)

        async def all_gone() -> bool:
            await come_back(redis)
            return await redis.zcard(DELAYED) == 0 and await empty(redis)

        await until(all_gone)
    assert await redis.xlen(DEAD) == 0

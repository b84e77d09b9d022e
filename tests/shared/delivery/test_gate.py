"""A machine that cannot work stops reading, says why until it can, and is probed by one entry."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

from events.types import PhotoSubmitted, SchemaExtracted
from shared.delivery import gate as gate_module
from shared.delivery.gate import Gate
from tests.shared.delivery.harness import extracted, publisher, running, settings_for, until

if TYPE_CHECKING:
    import pytest
    from redis.asyncio import Redis


def test_it_says_why_until_an_entry_went_well() -> None:
    now = 0.0
    gate = Gate(lambda: now)
    gate.shut("the disk is full", only_redis=False)
    gate.succeeded()  # by an entry that was in flight already
    assert gate.is_shut
    now = 10.5
    assert (gate.is_shut, gate.probing, gate.reason) == (False, True, "the disk is full")
    gate.succeeded()
    assert (gate.probing, gate.reason) == (False, "")


def test_a_reason_that_no_entry_can_confirm_is_forgotten() -> None:
    now = 0.0
    gate = Gate(lambda: now)
    gate.shut("the disk is full", only_redis=False)
    now = 41.0
    assert (gate.is_shut, gate.probing, gate.reason) == (False, False, "")


def test_redis_is_asked_again_at_once() -> None:
    now = 0.0
    gate = Gate(lambda: now)
    gate.shut("no connection", only_redis=True)
    now = 0.6
    assert (gate.is_shut, gate.probing, gate.reason) == (False, False, "")


async def test_one_entry_probes_a_machine_that_was_full_and_the_rest_follows(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "_UNHEALTHY_SECONDS", 0.3)
    full, now, most, probes = True, 0, 0, 0

    async def store(event: PhotoSubmitted) -> SchemaExtracted:
        nonlocal now, most, probes
        now += 1
        probes += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return extracted(event)

    settings = settings_for(redis_url, concurrency=8)
    async with running(settings, store) as (process, _), publisher(settings) as up:
        for number in range(30):
            await up.publish(PhotoSubmitted(source_url=f"https://example.org/{number}"))

        async def shut() -> bool:
            return process.runtime.gate.is_shut and not now

        await until(shut)
        most = probes = 0

        async def probed() -> bool:
            return probes >= 3

        await until(probed)
        assert most == 1
        assert "No space left" in process.runtime.gate.reason
        full = False

        async def through() -> bool:
            return await redis.xlen("erni:schema.extracted") == 30

        await until(through)
        assert process.runtime.gate.reason == ""
    assert await redis.xlen("erni:dead:schema_extractor") == 0

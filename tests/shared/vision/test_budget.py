from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from events.identities import SessionId
from shared.retry.errors import HttpStatusError, PostponeError
from shared.settings import Settings, SettingsError, load
from shared.vision.budget import Budget
from shared.vision.contract import PhotoContext, Usage
from shared.vision.prices import cost_of
from tests.shared.columns.columns import PHASE, library

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tests.shared.vision.conftest import Asking
    from tests.shared.vision.recorded import Recorded

GOOD = {"bildinhalt": "Ein Rohbau.", "Bauphase": {"value": "Rohbau", "confidence": 0.9}}
SESSION = SessionId("seewen-1")
# one call of 100,000 tokens read and 10,000 written costs 1
PRICES: dict[str, Any] = {"vision_price_input": 5.0, "vision_price_output": 50.0, "vision_max_tokens": 16}
ONE = Usage(prompt_tokens=100_000, completion_tokens=10_000)


def _settings(**more: Any) -> Settings:
    return Settings(**PRICES, **more)


async def _call(budget: Budget, session_id: SessionId | None = None, usage: Usage | None = ONE) -> None:
    async with budget.call(session_id) as call:
        if usage is not None:
            call.used(usage)


async def _spent(redis: Redis, what: str) -> float:
    return int(await redis.get(f"erni:{{vision}}:spent:{what}") or 0) / 1_000_000


def test_a_call_costs_what_the_price_list_says() -> None:
    assert cost_of(_settings(), 100_000, 10_000) == 1
    assert cost_of(Settings(), 100_000, 10_000) is None


async def test_a_day_that_is_spent_postpones_until_the_next_in_utc(redis: Redis) -> None:
    budget = Budget(_settings(vision_budget_day=2.5), redis)
    await _call(budget)
    await _call(budget)
    with pytest.raises(PostponeError, match=r"today's budget of 2\.5 is spent") as raised:
        await _call(budget)
    now = datetime.now(UTC)
    left = 86_400 - (now.hour * 3600 + now.minute * 60 + now.second)
    assert raised.value.seconds == pytest.approx(left, abs=5)
    assert await _spent(redis, now.date().isoformat()) == 2


async def test_one_session_cannot_spend_what_is_for_all(redis: Redis) -> None:
    budget = Budget(_settings(vision_budget_day=10, vision_budget_session=1.5), redis)
    await _call(budget, SESSION)
    with pytest.raises(PostponeError, match="of session seewen-1 is spent; raise VISION_BUDGET_SESSION"):
        await _call(budget, SESSION)
    await _call(budget, SessionId("seewen-2"))
    await _call(budget)
    assert await _spent(redis, f"session:{SESSION}") == 1


async def test_many_calls_at_once_do_not_overdraw_together(redis: Redis) -> None:
    settings = _settings(vision_budget_day=4.5)
    first = Budget(settings, redis)
    await _call(first)  # from here on a call is known to cost 1
    under_way = asyncio.Event()

    async def slow() -> bool:
        try:
            async with first.call(None) as call:
                await under_way.wait()
                call.used(ONE)
        except PostponeError:
            return False
        return True

    calls = [asyncio.create_task(slow()) for _ in range(8)]
    refused = 0
    while refused < 5:
        await asyncio.wait([call for call in calls if not call.done()], return_when="FIRST_COMPLETED")
        refused = sum(call.done() for call in calls)
    under_way.set()
    assert sum(await asyncio.gather(*calls)) == 3
    assert await _spent(redis, datetime.now(UTC).date().isoformat()) == 4


async def test_a_call_without_an_answer_stays_booked_as_estimated(redis: Redis) -> None:
    budget = Budget(_settings(vision_budget_day=10), redis)
    await _call(budget)
    with pytest.raises(TimeoutError):
        async with budget.call(None):
            raise TimeoutError
    assert await _spent(redis, datetime.now(UTC).date().isoformat()) == 2


async def test_without_a_budget_redis_is_not_asked(redis: Redis) -> None:
    before = (await redis.info("stats"))["total_commands_processed"]
    await _call(Budget(_settings(), redis))
    assert (await redis.info("stats"))["total_commands_processed"] == before + 1
    assert await redis.keys() == []


async def test_the_sums_are_forgotten_in_time(redis: Redis) -> None:
    await _call(Budget(_settings(vision_budget_session=10), redis), SESSION)
    keys = await redis.keys("erni:{vision}:*")
    assert len(keys) == 2
    assert [0 < await redis.pttl(key) <= 7 * 86_400_000 for key in keys] == [True, True]


async def test_a_call_that_was_refused_costs_nothing(asking: Asking, service: Recorded, redis: Redis) -> None:
    analyzer = await asking(**PRICES, vision_budget_day=5.0)
    service.answer(429, "", {"Retry-After": "1"})
    with pytest.raises(HttpStatusError):
        await analyzer.describe(b"", library(PHASE), PhotoContext())
    today = datetime.now(UTC).date().isoformat()
    assert await _spent(redis, today) == 0
    service.completion(GOOD, usage=(100_000, 10_000))
    await analyzer.describe(b"", library(PHASE), PhotoContext())
    assert await _spent(redis, today) == 1


async def test_a_photo_without_budget_is_not_asked_about(asking: Asking, service: Recorded) -> None:
    analyzer = await asking(**PRICES, vision_budget_session=1.5)
    service.completion(GOOD, usage=(100_000, 10_000))
    await analyzer.describe(b"", library(PHASE), PhotoContext(session_id=SESSION))
    with pytest.raises(PostponeError):
        await analyzer.describe(b"", library(PHASE), PhotoContext(session_id=SESSION))
    assert len(service.requests) == 1


def test_a_budget_without_prices_is_a_mistake_that_is_told() -> None:
    with pytest.raises(SettingsError, match="set VISION_PRICE_INPUT"):
        load({"VISION_BUDGET_DAY": "20"})
    assert load({"VISION_BUDGET_DAY": "20", "VISION_PRICE_OUTPUT": "10"}).vision_budget_day == 20

"""Keep vision calls within their budgets: reserve the estimate before a call, correct it after the call.

The sums are in Redis, so all processes share them. Because each call reserves first, many calls at once
cannot overdraw together. A process that dies between the two steps leaves its estimate counted, so the budget
is rather too small than overdrawn.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog
from redis.exceptions import RedisError

from events.scripts import load
from shared.retry.errors import PostponeError
from shared.vision.prices import cost_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from events.identities import SessionId
    from shared.settings import Settings
    from shared.vision.contract import Usage

log = structlog.get_logger()

_MILLION: Final = 1_000_000
_DAY_LIVES: Final = timedelta(days=2)
# as long as a session with photos in flight is remembered
_SESSION_LIVES: Final = timedelta(days=7)
# A session's budget comes back when an operator raises it: look every hour.
_SESSION_WAIT: Final = 3600.0
# Of a first call, when nothing was seen yet: instructions, schema and a picture of 1024 pixels.
_FIRST_PROMPT: Final = 2500


class Call:
    """Collect the usage of one call in flight; call `used` when the answer has arrived."""

    def __init__(self) -> None:
        self.usage: Usage | None = None

    def used(self, usage: Usage) -> None:
        """Note the usage that the service reports."""
        self.usage = usage


class Budget:
    """Hold the budgets of VISION_BUDGET_DAY and VISION_BUDGET_SESSION."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings = settings
        self._redis = redis
        self._limits = (_millionths(settings.vision_budget_day), _millionths(settings.vision_budget_session))
        self._last = cost_of(settings, _FIRST_PROMPT, settings.vision_max_tokens) or 0.0

    @asynccontextmanager
    async def call(self, session_id: SessionId | None) -> AsyncIterator[Call]:
        """Wrap one call. Raises PostponeError if too little of a budget is left for it.

        A call whose block never calls `used` is charged as estimated, because it may have been made.
        """
        call = Call()
        if not any(self._limits):
            yield call
            return
        estimate = _millionths(self._last)
        keys = self._keys(session_id)
        await self._reserve(keys, estimate, session_id)
        try:
            yield call
        finally:
            if call.usage is not None:
                used = (call.usage.prompt_tokens, call.usage.completion_tokens)
                cost = cost_of(self._settings, *used) or 0.0
                self._last = cost or self._last
                await self._correct(keys, _millionths(cost) - estimate)

    async def _reserve(self, keys: list[str], amount: int, session_id: SessionId | None) -> None:
        lives = [int(span / timedelta(milliseconds=1)) for span in (_DAY_LIVES, _SESSION_LIVES)]
        refused = await load("shared.vision", "reserve")(self._redis, keys, [amount, *self._limits, *lives])
        if refused == 1:
            raise PostponeError(
                f"asking the vision model: today's budget of {self._settings.vision_budget_day:g} is spent;"
                " the photo waits until tomorrow (UTC), or raise VISION_BUDGET_DAY",
                _until_tomorrow(),
            )
        if refused == 2:
            raise PostponeError(
                f"asking the vision model: the budget of {self._settings.vision_budget_session:g} of session"
                f" {session_id} is spent; raise VISION_BUDGET_SESSION and restart vision_analyzer",
                _SESSION_WAIT,
            )

    async def _correct(self, keys: list[str], difference: int) -> None:
        """Book the difference to the estimate. If Redis is away, the answer is kept: it is paid for."""
        try:
            for key in keys:
                await self._redis.incrby(key, difference)
        except RedisError as error:
            log.warning("a vision call stays booked as it was estimated", error=str(error))

    @staticmethod
    def _keys(session_id: SessionId | None) -> list[str]:
        """Return the keys, both in one cluster slot, because one script writes them."""
        keys = [f"erni:{{vision}}:spent:{datetime.now(UTC).date().isoformat()}"]
        if session_id is not None:
            keys.append(f"erni:{{vision}}:spent:session:{session_id}")
        return keys


def _millionths(money: float) -> int:
    return round(money * _MILLION)


def _until_tomorrow() -> float:
    now = datetime.now(UTC)
    tomorrow = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (tomorrow - now).total_seconds()

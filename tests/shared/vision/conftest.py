"""The recorded service, and an analyzer that asks it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import pytest

from shared.settings import Secret, Settings
from shared.vision.openai import OpenAIAnalyzer
from tests.shared.vision.recorded import Recorded, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

KEY = "sk-proj-canary-7f3a"


class Asking(Protocol):
    """Opens an analyzer on the recorded service, with settings of one's own."""

    async def __call__(self, **settings: Any) -> OpenAIAnalyzer: ...


@pytest.fixture
async def service() -> AsyncIterator[Recorded]:
    async with serving() as recorded:
        yield recorded
        assert recorded.unused == 0


@pytest.fixture
async def asking(service: Recorded, redis: Redis) -> AsyncIterator[Asking]:
    async with AsyncExitStack() as stack:

        async def open_one(**settings: Any) -> OpenAIAnalyzer:
            base = Settings(
                vision_backend="openai",
                vision_url=f"{service.url}/v1",
                vision_model="test-vision",
                vision_api_key=Secret(KEY),
            )
            analyzer = OpenAIAnalyzer(msgspec.structs.replace(base, **settings), redis)
            await analyzer.open()
            stack.push_async_callback(analyzer.close)
            return analyzer

        yield open_one

"""Each page as a person of each role sees it, in both languages; and what listing it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.console.pages import pictures, scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis as PlainRedis
    from redis.asyncio import Redis

    from shared.settings import Settings


@pytest.mark.parametrize("language", ["en", "de"])
async def test_every_page_is_shown(
    enter: Callable[..., Any], redis: Redis, client: PlainRedis, settings: Settings, language: str
) -> None:
    await scene.play(client, redis, settings.photo_store_url)
    await scene.keys(redis)
    person = await enter("admin", language)
    for name, path in (await pictures.pages(redis)).items():
        seen = await person.get(path)
        assert seen.status == (404 if name == "error" else 200), (name, seen.text[:800])
        assert f'<html lang="{"de-CH" if language == "de" else "en"}"' in seen.html
        assert "script-src 'self'" in seen.headers["Content-Security-Policy"]

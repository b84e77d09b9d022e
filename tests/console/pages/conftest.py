"""A gateway with the console, and people who are signed in to it."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import pytest
from redis import Redis as PlainRedis

from console.gateway.server import Gateway
from events.connection import connect
from shared.operations import access_keys
from shared.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from redis.asyncio import Redis

    from shared.operations.access_keys import Role

_TAGS: Final = re.compile(r"<[^>]+>|\s+")


class Seen:
    """An answer of the console."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def html(self) -> str:
        return self.body.decode()

    @property
    def text(self) -> str:
        """What a person reads, with single spaces."""
        return " ".join(_TAGS.sub(" ", self.html).split())

    def hidden(self, name: str) -> str:
        """The value of a hidden field."""
        import html

        found = re.search(rf'name="{name}" value="([^"]*)"', self.html)
        assert found, f"no field {name} in {self.text[:500]}"
        return html.unescape(found[1])


class Person:
    """Somebody with a browser, who is signed in or not."""

    def __init__(self, port: int, http: aiohttp.ClientSession) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.http = http

    async def get(self, path: str, **headers: str) -> Seen:
        """Open a page; where it leads to is not followed."""
        async with self.http.get(self.origin + path, headers=headers, allow_redirects=False) as answer:
            return Seen(answer.status, answer.headers, await answer.read())

    async def post(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> Seen:
        """Send a form, as a browser does from a page of the same origin."""
        sent = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin", **headers}
        sent = {name.replace("_", "-"): value for name, value in sent.items() if value}
        async with self.http.post(
            self.origin + path, data=fields or {}, headers=sent, allow_redirects=False
        ) as answer:
            return Seen(answer.status, answer.headers, await answer.read())

    async def refused(self, path: str, fields: dict[str, str]) -> Seen:
        """Send a form that is refused; returns the page that shows it again."""
        answer = await self.post(path, fields)
        assert answer.status == 303, answer.text
        return await self.get(str(answer.headers["Location"]))

    async def order(self, kind: str, query: str = "") -> str:
        """Ask, and confirm; returns the path of the operation."""
        asked = await self.get(f"/ask/{kind}?{query}")
        assert asked.status == 200, asked.text
        answer = await self.post("/operations", {"kind": kind, "selection": asked.hidden("selection")})
        assert answer.status == 303, answer.text
        return str(answer.headers["Location"])


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=redis_url, http_port=0, photo_store_url=str(tmp_path / "store"), environment="test"
    )


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as redis:
        yield redis


@pytest.fixture
def client(redis_url: str) -> Iterator[PlainRedis]:
    """A plain client of the test's Redis, to put there what a pipeline would."""
    with PlainRedis.from_url(redis_url, protocol=2) as client:
        yield client


@pytest.fixture
def office(redis: Redis) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Serve with some settings; the block gets a function that lets somebody of a role in."""

    @asynccontextmanager
    async def serve(settings: Settings) -> AsyncIterator[Any]:
        gateway = Gateway(settings)
        await gateway.start()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(gateway.stop)

            async def enter(role: Role | None = "admin", language: str = "en") -> Person:
                jar = aiohttp.CookieJar(unsafe=True)
                http = await stack.enter_async_context(
                    aiohttp.ClientSession(cookie_jar=jar, headers={"Accept-Language": language})
                )
                person = Person(gateway.port, http)
                if role is not None:
                    key = await access_keys.add(redis, f"{role}-{id(http)}", role)
                    answer = await person.post("/login", {"key": key})
                    assert answer.status == 303, answer.text
                return person

            yield enter

    return serve


@pytest.fixture
async def enter(
    office: Callable[..., AbstractAsyncContextManager[Any]], settings: Settings
) -> AsyncIterator[Any]:
    """A gateway; call it to sign somebody in."""
    async with office(settings) as enter:
        yield enter

"""A gateway on a port of its own, and clients with keys; answers are held against the OpenAPI document."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec
import pytest

from console.gateway import openapi
from console.gateway.server import Gateway
from shared.operations import access_keys
from shared.settings import Settings
from tests.shared.delivery.harness import extracted, running, settings_for, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from redis.asyncio import Redis

    from events.types import PhotoSubmitted, SchemaExtracted
    from shared.operations.access_keys import Role

DOCUMENT: Final = openapi.document()
SOURCE: Final = "urn:camera-app"
_PATHS: Final = {
    path: re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))) for path in DOCUMENT["paths"]
}


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    headers: Any
    body: bytes

    @property
    def document(self) -> Any:
        """The JSON document in it."""
        return msgspec.json.decode(self.body)

    @property
    def problem(self) -> str:
        """The kind of the problem, which must be a problem document."""
        assert self.headers["Content-Type"].startswith("application/problem+json"), self
        document = self.document
        assert document["status"] == self.status
        assert document["title"]
        assert document["detail"]
        return str(document["type"]).removeprefix("/v1/problems/")

    @property
    def detail(self) -> str:
        return str(self.document["detail"])

    @property
    def errors(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.document.get("errors", [])
        return found


class Client:
    """Sends requests with a key."""

    def __init__(self, port: int, http: aiohttp.ClientSession, key: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.http = http
        self.key = key

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        """Send a request and compare its answer with the OpenAPI document."""
        headers = {**({"Authorization": f"Bearer {self.key}"} if self.key else {}), **more.pop("headers", {})}
        async with self.http.request(
            method, self.url + path, headers=headers, allow_redirects=False, **more
        ) as response:
            answer = Answer(response.status, response.headers, await response.read())
        _is_documented(method, path.partition("?")[0], answer)
        return answer

    async def publish(self, document: Any, **more: Any) -> Answer:
        """Send one event in structured mode, or a list of events as a batch."""
        kind = "application/cloudevents-batch+json" if isinstance(document, list) else STRUCTURED
        headers = {"Content-Type": kind, **more.pop("headers", {})}
        body = document if isinstance(document, bytes) else msgspec.json.encode(document)
        return await self.ask("POST", "/v1/events", data=body, headers=headers, **more)


STRUCTURED: Final = "application/cloudevents+json"


def event(number: object = 1, **more: Any) -> dict[str, Any]:
    """A photo as a CloudEvent in JSON."""
    return {
        "specversion": "1.0",
        "id": f"e-{number}",
        "source": SOURCE,
        "type": "photo.submitted",
        "data": {"source_url": f"https://photos.example.org/{number}.jpg", "session_id": "s1"},
        **more,
    }


def _is_documented(method: str, path: str, answer: Answer) -> None:
    found = [name for name, pattern in _PATHS.items() if pattern.fullmatch(path)]
    if not found or answer.status == 405:
        return
    responses = DOCUMENT["paths"][found[0]][method.lower()]["responses"]
    documented = responses.get(str(answer.status))
    assert documented is not None, (
        f"{method} {path}: {answer.status} is not documented: {answer.body[:300]!r}"
    )
    kind = answer.headers.get("Content-Type", "").partition(";")[0]
    assert not answer.body or kind in documented.get("content", {}), (
        f"{method} {path}: {kind} is not documented"
    )


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=redis_url, http_port=0, photo_store_url=str(tmp_path / "store"))


@pytest.fixture
def served(redis: Redis) -> Callable[..., AbstractAsyncContextManager[Client]]:
    """Serve with some settings; the block gets a client whose key has that role."""

    @asynccontextmanager
    async def serve(settings: Settings, role: Role = "publisher", **more: Any) -> AsyncIterator[Client]:
        key = await key_of(redis, role, **more)
        gateway = Gateway(settings)
        await gateway.start()
        try:
            async with aiohttp.ClientSession(auto_decompress=False) as http:
                yield Client(gateway.port, http, key)
        finally:
            await gateway.stop()

    return serve


async def key_of(redis: Redis, role: Role, name: str = "", **more: Any) -> str:
    """Make a key; a publisher's source is SOURCE."""
    source = more.pop("source", SOURCE if role == "publisher" else "")
    return await access_keys.add(redis, name or f"the-{role}", role, source=source, **more)


async def taken_in(redis: Redis, session: str) -> None:
    """Let an agent take the photos in, so that the session is there."""

    async def do(photo: PhotoSubmitted) -> SchemaExtracted:
        return extracted(photo)

    where = redis.connection_pool.connection_kwargs
    async with running(settings_for(f"redis://{where['host']}:{where['port']}/0"), do):
        await until(lambda: redis.exists(f"erni:session:{session}"))
        await until(lambda: _is_empty(redis))


async def _is_empty(redis: Redis) -> bool:
    return await redis.xlen("erni:photo.submitted") == 0


@pytest.fixture
async def client(
    served: Callable[..., AbstractAsyncContextManager[Client]], settings: Settings
) -> AsyncIterator[Client]:
    """A publisher of SOURCE."""
    async with served(settings) as one:
        yield one

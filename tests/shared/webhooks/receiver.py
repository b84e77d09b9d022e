"""A receiver of notices on loopback, and the notifier's process in this one, for tests."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from consumers.webhook_notifier import WebhookNotifier
from events.connection import connect
from shared.delivery.process import AgentProcess
from shared.operations import webhooks
from tests.shared.delivery.harness import settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from redis.asyncio import Redis

    from shared.operations.webhooks import Registered
    from shared.settings import Settings

    Answer = Callable[["Got"], Awaitable[web.StreamResponse]]

HOST: Final = "127.0.0.1"
SOURCE: Final = "urn:camera-app"


class Got(msgspec.Struct, frozen=True):
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found


class Receiver:
    """Answers 204, or what `answers` says for a path; keeps what it got."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.answers: dict[str, Answer] = {}
        self.url = ""
        self._news = asyncio.Condition()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        got = Got(request.path, {k.lower(): v for k, v in request.headers.items()}, await request.read())
        async with self._news:
            self.got.append(got)
            self._news.notify_all()
        answer = self.answers.get(request.path)
        return await answer(got) if answer else web.Response(status=204)

    async def wait(self, number: int, path: str = "", seconds: float = 20.0) -> list[Got]:
        """Return what came to the path when it is so many requests, or more."""

        def those() -> list[Got]:
            return [got for got in self.got if got.path.startswith(path)]

        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: len(those()) >= number)
        return those()


def says(status: int, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer of that status."""

    async def answer(_: Got) -> web.StreamResponse:
        return web.Response(status=status, headers=headers)

    return answer


@asynccontextmanager
async def receiving(certificate: Path | None = None) -> AsyncIterator[Receiver]:
    """A receiver that runs; `certificate`: with TLS, a PEM file with certificate and key."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    site = web.TCPSite(runner, HOST, 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    receiver.url = f"{'https' if tls else 'http'}://{HOST}:{port}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def hook_settings(redis_url: str, **changes: Any) -> Settings:
    """Settings that allow a receiver on loopback."""
    return settings_for(redis_url, **{"webhook_hosts": (HOST,), **changes})


async def register(redis: Redis, settings: Settings, url: str, **more: Any) -> Registered:
    """Register an address for `SOURCE`."""
    return await webhooks.add(redis, settings, url, **{"source": SOURCE, **more})


@asynccontextmanager
async def notifying(settings: Settings) -> AsyncIterator[AgentProcess]:
    """The notifier's process, in this one."""
    redis = connect(settings.redis_url)
    process = AgentProcess(WebhookNotifier(settings, redis), settings)
    task = asyncio.create_task(process.run(serve=False))
    ready = asyncio.create_task(process.ready.wait())
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        ready.cancel()
        task.result()
    try:
        yield process
    finally:
        process.stop()
        await task
        await redis.aclose()

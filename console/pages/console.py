"""Puts the console together: its pages, its guard, its live state, and the operations that it drives."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from aiohttp import web

from console.pages import rendering
from console.pages.activity_page import ActivityPage
from console.pages.dead_page import DeadPage
from console.pages.desk import Desk
from console.pages.guard import Guard, Route
from console.pages.keys_page import KeysPage
from console.pages.live import Live
from console.pages.login_page import LoginPage
from console.pages.operations_page import OperationsPage
from console.pages.photo_page import PhotoPage
from console.pages.pipeline_page import PipelinePage
from console.pages.sessions_page import SessionsPage
from console.pages.webhooks_page import WebhooksPage
from shared.operations.bulk_runner import BulkRunner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from shared.settings import Settings

_STATIC_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class Console:
    """The pages for people."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._live = Live(redis, settings)
        self._desk = Desk(redis, settings, self._live)
        login = LoginPage(self._desk)
        self.routes = [
            *login.routes,
            *PipelinePage(self._desk).routes,
            *SessionsPage(self._desk).routes,
            *PhotoPage(self._desk).routes,
            *DeadPage(self._desk).routes,
            *OperationsPage(self._desk).routes,
            *ActivityPage(self._desk).routes,
            *WebhooksPage(self._desk).routes,
            *KeysPage(self._desk).routes,
            Route("GET", "/static/{name}", None, _static),
        ]
        """Every request of the console, with the role that it needs."""
        self._guard = Guard(self._desk, self.routes)
        login.forget, login.greet = self._guard.forget, self._guard.greet

    def add_to(self, app: web.Application) -> None:
        """Add the routes, the middleware and what runs beside them."""
        app.middlewares.append(self._guard.middleware)
        for route in self.routes:
            app.router.add_route(route.method, route.path, route.handler)
            if route.method == "GET" and not route.is_stream:
                app.router.add_route("HEAD", route.path, route.handler)
        app.cleanup_ctx.append(self._beside)
        app.on_shutdown.append(lambda _: self._live.close())

    async def _beside(self, _app: web.Application) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(self._live.run()),
            asyncio.create_task(BulkRunner(self._redis, self._desk.bulk).run()),
        ]
        yield
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def _static(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    path = rendering.STATIC / name
    if path.parent != rendering.STATIC or not path.is_file():
        raise web.HTTPNotFound
    return web.Response(
        body=path.read_bytes(),
        content_type=_STATIC_TYPES[path.suffix[1:]],
        charset="utf-8",
        headers={"Cache-Control": "max-age=31536000, immutable"},
    )

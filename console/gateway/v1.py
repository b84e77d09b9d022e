"""Puts the requests of `/v1` together: their routes, and one form for everything that goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from console.errors import CommandError
from console.explain import open_store, redis_trouble
from console.gateway import openapi, problems
from console.gateway.access import LIMITS, Door
from console.gateway.dead_api import DeadApi
from console.gateway.events_api import EventsApi
from console.gateway.observing import EVENTS, REFUSED, route_of
from console.gateway.photos_api import PhotosApi
from console.gateway.problems import Problem
from console.gateway.publishing import Intake
from console.gateway.records_api import RecordsApi
from console.gateway.reports_api import ReportsApi
from console.gateway.stream_api import StreamApi
from console.gateway.webhooks_api import WebhooksApi
from events.connection import RedisError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware
    from redis.asyncio import Redis

    from shared.photo_store import BlobStore
    from shared.settings import Settings

_log = structlog.get_logger(__name__)


_PUBLISHING: Final = ("/v1/events", "/v1/photos")


class V1:
    """The interface for other systems."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._settings = settings
        self._opened: BlobStore | None = None
        door = Door(redis, per_minute=settings.http_rate_per_minute)
        self._intake = Intake(redis, settings)
        self._events = EventsApi(door, self._intake)
        self._stream = StreamApi(redis, settings, door)
        self._photos = PhotosApi(redis, settings, door, self._intake, self._store)
        self._reports = ReportsApi(redis, settings, door, self._store)
        self._dead = DeadApi(redis, settings, door)
        self._webhooks = WebhooksApi(redis, settings, door)
        self._records = RecordsApi(redis, settings, door, self._intake, self._store)

    def _store(self) -> BlobStore:
        """Return the photo store, opened when it is first needed. Raises CommandError."""
        if self._opened is None:
            self._opened = open_store(self._settings)
        return self._opened

    def add_to(self, app: web.Application) -> None:
        """Add the routes and the middleware."""
        app.middlewares.append(self._answered)
        app.on_shutdown.append(self._stream.shut_down)
        app.on_cleanup.append(self._close)
        app.router.add_post("/v1/events", self._events.publish)
        app.router.add_options("/v1/events", self._events.handshake)
        app.router.add_post("/v1/photos", self._photos.upload)
        app.router.add_get("/v1/photos/{id}", self._records.photo)
        app.router.add_get("/v1/sessions/{id}", self._records.session)
        app.router.add_get("/v1/sessions/{id}/report", self._reports.report)
        app.router.add_post("/v1/sessions/{id}/close", self._records.close)
        app.router.add_post("/v1/dead/replay", self._dead.replay)
        app.router.add_get("/v1/operations/{id}", self._dead.operation)
        app.router.add_get("/v1/webhooks", self._webhooks.show)
        app.router.add_get("/v1/stream", self._stream.stream, allow_head=False)
        app.router.add_get("/v1/openapi.json", openapi.serve)
        app.router.add_get("/v1/asyncapi.json", openapi.serve_events)
        app.router.add_get(problems.PAGES + "{name}", problems.page)

    async def _close(self, _app: web.Application) -> None:
        await self._intake.close()
        await self._stream.close()

    @property
    def _answered(self) -> Middleware:
        @web.middleware
        async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not request.path.startswith("/v1/"):
                return await handler(request)
            try:
                answer = await handler(request)
            except Problem as problem:
                if request.method == "POST" and request.path in _PUBLISHING:
                    REFUSED.inc(request.get(EVENTS, 1))
                answer = problem.answer()
            except web.HTTPMethodNotAllowed as error:
                methods = ", ".join(sorted(error.allowed_methods))
                answer = Problem(
                    problems.METHOD_NOT_ALLOWED,
                    f"{request.path} has no {request.method[:20]}: it has {methods}",
                    headers={"Allow": methods},
                ).answer()
            except web.HTTPException as error:
                if error.status != 404:
                    raise
                answer = Problem(
                    problems.NOT_FOUND, "there is no such address: /v1/openapi.json lists those there are"
                ).answer()
            except (RedisError, CommandError, OSError) as error:
                answer = self._trouble(error).answer()
            except Exception:  # noqa: BLE001 - one request must not show its traceback to whoever sent it
                _log.exception("request failed", method=request.method, route=route_of(request))
                answer = Problem(
                    problems.INTERNAL_ERROR,
                    "the request was not answered, because of a mistake in the gateway: its log says more",
                ).answer()
            answer.headers.update(request.get(LIMITS, {}))
            return answer

        return answered

    def _trouble(self, error: Exception) -> Problem:
        if isinstance(error, RedisError):
            trouble = redis_trouble(error, self._settings).rstrip(".")
            return Problem(
                problems.REDIS_AWAY,
                f"{trouble}. If this request publishes, it may be done or not: send it again as it is, and"
                " nothing is published twice.",
                headers={"Retry-After": "5"},
            )
        return Problem(problems.STORE_AWAY, str(error), headers={"Retry-After": "15"})

"""Lets in who is signed in, with the role that a page needs, and only from our own pages."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
import structlog
from aiohttp import web

from console.errors import CommandError
from console.explain import explain, redis_trouble
from console.gateway import bodies
from console.gateway.problems import Problem
from console.pages import rendering
from console.pages.desk import RANKS, VISIT, Visit
from console.pages.texts import Quoted, Texts, chosen, is_language
from events.connection import RedisError
from shared.operations import sign_in
from shared.operations.access_keys import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler, Middleware

    from console.pages.desk import Desk
    from shared.operations.sign_in import SignedIn

COOKIE: Final = "erni_console"
LANGUAGE_COOKIE: Final = "erni_language"
"""Holds the language that a person chose; without it the browser's own counts."""
FORM_BYTES: Final = 2_000_000
"""The largest form is an event to edit."""
_REMEMBERED_SECONDS: Final = 2.0
"""How long a cookie that Redis knew is taken without asking again."""
_log = structlog.get_logger(__name__)


class Route(msgspec.Struct, frozen=True):
    """One request of the console, and who may make it; None: everybody, to sign in."""

    method: str
    path: str
    role: Role | None
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    is_stream: bool = False
    """Its answer goes on for long, and there is no HEAD of it."""


class RefusedError(Exception):
    """Raised when a request is not carried out; the page shows the sentence."""

    def __init__(self, key: str, status: int = 400, **values: object) -> None:
        """`key`: of the sentence in the catalogue."""
        super().__init__(key)
        self.key = key
        self.status = status
        self.values = values


class Guard:
    """The middleware of the console's routes; requests of others pass."""

    def __init__(self, desk: Desk, routes: list[Route]) -> None:
        self._desk = desk
        self._routes = {(route.method, route.path): route for route in routes}
        self._known: dict[str, tuple[SignedIn, float]] = {}

    @property
    def middleware(self) -> Middleware:
        """Return it for an application."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            method = "GET" if request.method == "HEAD" else request.method
            route = self._routes.get((method, resource.canonical if resource else ""))
            if route is None:
                return await self._foreign(request, handler)
            answer = await self._answer(request, route, handler)
            for name, value in rendering.HEADERS.items():
                answer.headers.setdefault(name, value)
            answer.headers.setdefault("Content-Security-Policy", rendering.POLICY)
            return answer

        return guarded

    async def greet(self, request: web.Request) -> None:
        """Let a page that everybody may see show who is signed in, if Redis answers."""
        request[VISIT] = Visit(texts=_texts(request))
        try:
            if await self._recognize(request):
                # what the frame of a page for somebody reads
                await self._desk.live.now()
        except (RedisError, OSError):
            request[VISIT] = Visit(texts=_texts(request))

    async def _recognize(self, request: web.Request) -> bool:
        person = await self._person(request)
        if person is None:
            return False
        request[VISIT] = Visit(name=person.name, role=person.role, texts=_texts(request))
        return True

    def forget(self, token: str) -> None:
        """Ask Redis about a cookie again at its next request."""
        self._known.pop(token, None)

    async def _foreign(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass on what is not ours; people get a page for an address that does not exist."""
        try:
            return await handler(request)
        except web.HTTPNotFound:
            if "text/html" not in request.headers.get("Accept", "") or request.path.startswith("/v1/"):
                raise
            without = request.path.rstrip("/")
            if request.method == "GET" and without != request.path and back_to(without) == without:
                return web.Response(status=303, headers={"Location": without, "Cache-Control": "no-store"})
            await self.greet(request)
            answer = await self._page(request, "error.no_page", 404)
            answer.headers.update({**rendering.HEADERS, "Content-Security-Policy": rendering.POLICY})
            return answer

    async def _answer(self, request: web.Request, route: Route, handler: Handler) -> web.StreamResponse:
        request[VISIT] = Visit(texts=_texts(request))
        try:
            if not await self._admit(request, route):
                return _to_login(request)
            return await handler(request)
        except web.HTTPException:
            raise
        except RefusedError as refused:
            return await self._page(request, refused.key, refused.status, **refused.values)
        except Problem as problem:
            return await self._page(request, "error.plain", problem.kind.status, why=str(problem))
        except Exception as error:  # noqa: BLE001 - one request must not show its traceback
            why = self._sentence(error)
            if why:
                return await self._page(request, "error.plain", 503, why=why)
            _log.exception("page failed", method=request.method, route=route.path)
            return await self._page(request, "error.ours", 500)

    async def _admit(self, request: web.Request, route: Route) -> bool:
        """Return False for a person who has to sign in. Raises RefusedError for one who may not do this."""
        if request.method == "POST" and not is_ours(request):
            raise RefusedError("error.foreign_form", 403)
        if route.role is None:
            return True
        if not await self._recognize(request):
            return False
        visit = request[VISIT]
        if not visit.may(route.role):
            raise RefusedError("error.role", 403, role=visit.texts(f"role.{route.role}"))
        return True

    def _sentence(self, error: Exception) -> str:
        """Return what to say about an error that no mistake of ours caused; else ''."""
        if isinstance(error, RedisError):
            return redis_trouble(error, self._desk.settings)
        known = error if isinstance(error, CommandError) else explain(error)
        return "" if known is None else str(known)

    async def _page(self, request: web.Request, key: str, status: int, **values: object) -> web.Response:
        message = rendering.spoken(self._desk, request)(
            key, **{name: Quoted(value) if name == "why" else value for name, value in values.items()}
        )
        if status >= 500:
            # without what the frame of a page reads from Redis
            request[VISIT] = Visit(texts=request[VISIT].texts)
        return await rendering.page(self._desk, request, "message", status=status, message=message)

    async def _person(self, request: web.Request) -> SignedIn | None:
        token = request.cookies.get(COOKIE, "")
        if not token:
            return None
        now = time.monotonic()
        known = self._known.get(token)
        if known is not None and known[1] > now:
            return known[0]
        self._known = {one: entry for one, entry in self._known.items() if entry[1] > now}
        person = await sign_in.who(self._desk.redis, token)
        if person is None or person.role not in RANKS:
            return None
        self._known[token] = (person, now + _REMEMBERED_SECONDS)
        return person


def is_ours(request: web.Request) -> bool:
    """Return whether a request that changes something was sent by a page of ours.

    Browsers send Origin with each POST (Fetch, "append a request Origin header"), and Sec-Fetch-Site.
    """
    origin = urlsplit(request.headers.get("Origin", ""))
    return (
        origin.scheme in ("http", "https")
        and origin.netloc == request.headers.get("Host", "")
        and request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    )


async def form(request: web.Request) -> Mapping[str, str]:
    """Return the fields of a form.

    Raises Problem for a body that is too large or too slow, RefusedError for more fields than a form has.
    """
    remedy = "send a smaller form"
    body = await bodies.whole(request, FORM_BYTES, seconds=10.0, remedy=remedy)
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        raise RefusedError("error.address") from None


def back_to(target: str, otherwise: str = "/") -> str:
    """Return a path of ours out of a form or query: nothing that leads to another host."""
    parts = urlsplit(target)
    plain = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if plain and not parts.scheme and not parts.netloc else otherwise


def _texts(request: web.Request) -> Texts:
    wanted = request.cookies.get(LANGUAGE_COOKIE, "")
    return Texts(wanted if is_language(wanted) else chosen(request.headers.get("Accept-Language", "")))


def _to_login(request: web.Request) -> web.Response:
    """Send a person to sign in, and from there to where they wanted to go."""
    if request.method != "GET" or request.headers.get("Sec-Fetch-Dest", "document") != "document":
        return web.Response(status=401, text="sign in first\n", headers={"Cache-Control": "no-store"})
    here = rendering.address("login", next=request.path_qs if request.path_qs != "/" else None)
    if request.headers.get("Sec-Fetch-Site") == "cross-site" and COOKIE not in request.cookies:
        # A link on another site (an alert, a trace) comes without the SameSite cookie. From this page of ours
        # the browser asks again, with it.
        return web.Response(
            text='<!doctype html><meta http-equiv="refresh" content="0"><title>erni</title>',
            content_type="text/html",
            headers={"Cache-Control": "no-store"},
        )
    return web.Response(status=303, headers={"Location": here, "Cache-Control": "no-store"})

"""The page to sign in: with a key, or with a link that works once; and the language of the pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from console.pages import rendering
from console.pages.desk import RANKS
from console.pages.guard import COOKIE, LANGUAGE_COOKIE, RefusedError, Route, back_to, form
from console.pages.texts import is_language
from shared.operations import access_keys, activity, sign_in
from shared.operations.activity import Person

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from console.pages.desk import Desk


_LANGUAGE_SECONDS: Final = 365 * 24 * 3600
"""How long a browser remembers the chosen language."""


class LoginPage:
    """Signs in and out, and changes the language, which needs no key."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.forget: Callable[[str], None] = lambda _: None
        """Called with a token that was signed out."""
        self.greet: Callable[[web.Request], Awaitable[None]] = _as_stranger
        """Called before the page is shown, which says who is signed in."""

    @property
    def routes(self) -> list[Route]:
        """Return the requests of this page."""
        return [
            Route("GET", "/login", None, self._show),
            Route("POST", "/login", None, self._enter),
            Route("POST", "/logout", None, self._leave),
            Route("POST", "/language", None, self._speak),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        await self.greet(request)
        return await self._form(request, request.query.get("next", ""))

    async def _form(
        self, request: web.Request, target: str, *, wrong: str = "", status: int = 200
    ) -> web.Response:
        return await rendering.page(
            self._desk, request, "login", target=back_to(target, ""), wrong=wrong, status=status
        )

    async def _enter(self, request: web.Request) -> web.Response:
        given = await form(request)
        redis, ticket = self._desk.redis, given.get("ticket", "").strip()
        key, target = given.get("key", "").strip(), given.get("next", "")
        found = await (sign_in.with_ticket(redis, ticket) if ticket else sign_in.with_key(redis, key))
        if found is None:
            wrong = "login.wrong_ticket" if ticket else "login.wrong_key"
            return await self._form(request, target, wrong=wrong, status=403)
        person, token = found
        if person.role not in RANKS:
            await sign_in.sign_out(redis, token)
            return await self._form(request, target, wrong="login.publisher", status=403)
        if not ticket:
            await access_keys.note_use(redis, person.name)
        await activity.note(redis, Person(person.name, person.role), "sign in")
        answer = web.Response(status=303, headers={"Location": back_to(target)})
        answer.set_cookie(
            COOKIE,
            token,
            max_age=sign_in.STAYS_SECONDS,
            httponly=True,
            samesite="Strict",
            # behind a proxy only the browser knows that it speaks TLS
            secure=request.headers.get("Origin", "").startswith("https:"),
            path="/",
        )
        return answer

    async def _leave(self, request: web.Request) -> web.Response:
        token = request.cookies.get(COOKIE, "")
        if token:
            await sign_in.sign_out(self._desk.redis, token)
            self.forget(token)
        answer = web.Response(status=303, headers={"Location": "/login"})
        answer.del_cookie(COOKIE, path="/")
        return answer

    async def _speak(self, request: web.Request) -> web.Response:
        given = await form(request)
        language = given.get("language", "")
        if not is_language(language):
            raise RefusedError("error.address")
        answer = web.Response(status=303, headers={"Location": back_to(given.get("back", ""))})
        answer.set_cookie(
            LANGUAGE_COOKIE,
            language,
            max_age=_LANGUAGE_SECONDS,
            httponly=True,
            samesite="Lax",
            secure=request.headers.get("Origin", "").startswith("https:"),
            path="/",
        )
        return answer


async def _as_stranger(_request: web.Request) -> None:
    pass

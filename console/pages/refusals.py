"""Leads from a refused form to its page, which shows the form again: "back" in a browser then sends nothing.

What was typed, and why it was refused, travel in a cookie for one look at that page.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

_COOKIE: Final = "erni_refused"
_SECONDS: Final = 60
_LONGEST: Final = 3800
"""Bytes; browsers take cookies up to 4096 bytes, with their name and attributes (RFC 6265 § 6.1)."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a form was refused ('': none was), and what was typed into it."""

    wrong: str = ""
    given: dict[str, str] = {}


def lead_to(
    path: str, request: web.Request, wrong: str, given: Mapping[str, str] | None = None
) -> web.Response:
    """Answer a refused form: look at the page of that path, which says why."""
    value = _packed(Refusal(wrong, dict(given or {})))
    if len(value) > _LONGEST:
        # what was typed is too long to travel, so it has to be typed again
        value = _packed(Refusal(wrong[:1000]))
    answer = web.Response(status=303, headers={"Location": path, "Cache-Control": "no-store"})
    answer.set_cookie(
        _COOKIE,
        value,
        max_age=_SECONDS,
        httponly=True,
        samesite="Strict",
        secure=request.headers.get("Origin", "").startswith("https:"),
        path=path,
    )
    return answer


def refusal_of(request: web.Request) -> Refusal:
    """Return the refusal that led to this page; an empty one if none did."""
    try:
        # as many signs of padding as can be missing; more than needed are ignored
        raw = base64.urlsafe_b64decode(request.cookies.get(_COOKIE, "") + "===")
        return msgspec.json.decode(raw, type=Refusal) if raw else Refusal()
    except (msgspec.MsgspecError, ValueError):
        return Refusal()


def forget(request: web.Request, answer: web.Response) -> web.Response:
    """Show a refusal no second time."""
    if _COOKIE in request.cookies:
        answer.del_cookie(_COOKIE, path=request.path)
    return answer


def _packed(refusal: Refusal) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(refusal)).decode().rstrip("=")

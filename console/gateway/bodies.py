"""Reads the body of a request within limits of bytes and time, so that nobody fills or holds the gateway."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import ClientError, web

from console.gateway import problems
from console.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CHUNK: Final = 1 << 16


def refuse_encoding(request: web.Request) -> None:
    """Raise Problem for a compressed body, whose size nobody knows before it is read."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Problem(
            problems.MEDIA_TYPE_UNKNOWN,
            f"the body is compressed ({encoding[:40]}): send it without Content-Encoding",
            headers={"Accept-Encoding": "identity"},
        )


def refuse_length(request: web.Request, limit: int, remedy: str) -> None:
    """Raise Problem, before anything is read, if the request says that its body has more bytes."""
    if (request.content_length or 0) > limit:
        raise too_large(limit, remedy)


def too_large(limit: int, remedy: str) -> Problem:
    """Return the problem of a body with more bytes than are taken."""
    return Problem(
        problems.TOO_LARGE,
        f"the body has more than {limit:,} bytes: {remedy}",
        headers={"Connection": "close"},
    )


async def whole(request: web.Request, limit: int, *, seconds: float, remedy: str) -> bytes:
    """Return a body of at most `limit` bytes that comes within `seconds`. Raises Problem."""
    refuse_encoding(request)
    refuse_length(request, limit, remedy)
    if request.content.is_eof() and request.content.exception() is None:
        # it came together with the header, as most events do
        here = request.content.read_nowait(-1)
        if len(here) > limit:
            raise too_large(limit, remedy)
        return here
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in chunks(request):
                body += chunk
                if len(body) > limit:
                    raise too_large(limit, remedy)
    except TimeoutError:
        raise too_slow(seconds) from None
    return bytes(body)


def too_slow(seconds: float) -> Problem:
    """Return the problem of a body that did not come in time."""
    return Problem(
        problems.BODY_TOO_SLOW,
        f"the body was not here after {seconds:g} s: nothing was published; send the request again",
        headers={"Connection": "close"},
    )


async def chunks(request: web.Request) -> AsyncIterator[bytes]:
    """Yield a body as it comes. Raises Problem for one that is cut off."""
    while True:
        try:
            chunk = await request.content.read(_CHUNK)
        except (ClientError, ConnectionError, web.HTTPException) as error:
            raise Problem(
                problems.BAD_REQUEST,
                "the body ended too early, or its chunks cannot be read: nothing was published",
                headers={"Connection": "close"},
            ) from error
        if not chunk:
            return
        yield chunk

"""The pre-authenticated addresses: a file's bytes, and the fragments of an upload session.

They live on another origin, take no token, and refuse a request that brings one, as the real ones may.
"""

from __future__ import annotations

import hmac
import time
from typing import TYPE_CHECKING, Final

from sandbox.sharepoint.errors import GraphError, not_found
from sandbox.sharepoint.exchange import Answer
from sandbox.sharepoint.faults import STRICT_SHARE_LATE_HASH
from sandbox.sharepoint.uploads import Finished

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from sandbox.sharepoint.exchange import Service
    from sandbox.sharepoint.rendering import Renderer

PREFIX: Final = "/_storage/"


def subject_of(service: Service, path: str) -> str:
    """The item that a pre-authenticated address is about, as `dispatch.subject_of` names it."""
    kind, _, name = path.removeprefix(PREFIX).partition("/")
    store = service.store
    if kind == "download" and name in store.items:
        item = store.items[name]
        return f"{store.lists[item.list_id].display_name}/{store.graph_path(item)}"
    session = store.sessions.get(name) if kind == "upload" else None
    if session is None:
        return path
    parts = [store.lists[session.list_id].display_name, store.graph_path(store.items[session.parent_id])]
    return "/".join(filter(None, [*parts, session.name]))


async def serve(service: Service, request: web.Request, path: str, show: Renderer, request_id: str) -> Answer:
    """Answer a request to a pre-authenticated address. Raises GraphError."""
    if "Authorization" in request.headers:
        raise GraphError(
            401,
            "unauthenticated",
            "This address is pre-authenticated: send no Authorization header to it.",
        )
    kind, _, name = path.removeprefix(PREFIX).partition("/")
    signature = request.query.get("tempauth", "")
    if kind == "download" and request.method in ("GET", "HEAD"):
        return _download(service, request, name, signature)
    if kind != "upload" or not hmac.compare_digest(signature.encode(), service.tokens.sign(name).encode()):
        raise not_found()
    return await _upload(service, request, name, show, request_id)


def _download(service: Service, request: web.Request, item_id: str, signature: str) -> Answer:
    expires = request.query.get("expires", "")
    expected = service.tokens.sign(f"{item_id}.{expires}")
    if not hmac.compare_digest(signature.encode(), expected.encode()):
        raise GraphError(401, "unauthenticated", "The address is not valid.")
    if not expires.isdigit() or int(expires) < time.time():
        raise GraphError(401, "unauthenticated", "The address has expired: ask for a new one.")
    item = service.store.items.get(item_id)
    if item is None or item.deleted or item.content is None:
        raise not_found()
    service.budget.spend(1)
    return Answer(
        file=service.store.path(item),
        headers={
            "Content-Type": item.content.media_type,
            "Cache-Control": "private, max-age=0",
            "X-Content-Type-Options": "nosniff",
        },
    )


async def _upload(
    service: Service, request: web.Request, session_id: str, show: Renderer, request_id: str
) -> Answer:
    uploads = service.uploads
    if request.method == "GET":
        return Answer(body=uploads.status(uploads.get(session_id)))
    if request.method == "DELETE":
        uploads.cancel(session_id, request_id=request_id)
        return Answer(204)
    service.budget.spend(2)
    if request.method == "POST":
        done = await uploads.commit(session_id, request_id=request_id)
    elif request.method == "PUT":
        received = await uploads.receive(session_id, request.headers, pieces(request), request_id=request_id)
        if not isinstance(received, Finished):
            return Answer(202, uploads.status(received))
        done = received
    else:
        raise GraphError(405, "notAllowed", f"The method {request.method} is not allowed here.")
    if service.faults.chance(STRICT_SHARE_LATE_HASH):
        service.items.delay_hash(done.item)
    answer = Answer(201 if done.created else 200, show.drive_item(done.item))
    if service.faults.stale(request.method, request.path, request_id):
        service.items.touch(done.item, request_id=request_id)
    return answer


async def pieces(request: web.Request) -> AsyncIterator[bytes]:
    """The body of a request as it comes in.

    Not by iter_chunks: aiohttp's one reader for all empty bodies remembers its end, which makes that loop.
    """
    async for piece in request.content.iter_any():
        yield piece

"""A server that gives exactly the HTTP answers a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.test_utils import TestServer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from multidict import CIMultiDictProxy


@dataclass(frozen=True)
class Reply:
    """One HTTP answer; `drop`: the request is read and the connection cut instead."""

    status: int = 200
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    cut_after: int | None = None
    """Cut the connection after so many bytes of the body."""
    gate: asyncio.Event | None = None
    """Answer only once it is set."""


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    """Still percent-encoded, with its query."""
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def refusal(status: int, code: str, *inner: str, message: str = "said so", **headers: str) -> Reply:
    """An error body as Graph writes it, `inner` codes nested."""
    level: dict[str, Any] = {"request-id": "r-1", "date": "2026-05-12T08:00:00"}
    for each in reversed(inner):
        level = {"code": each, "innerError": level}
    return Reply(
        status,
        {"error": {"code": code, "message": message, "innerError": level}},
        {name.replace("_", "-"): value for name, value in headers.items()},
    )


class Stub:
    """Answers by method and path, each a queue whose last answer is given for ever; else 404."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._replies: dict[tuple[str, str], list[Reply]] = {}
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self._server = TestServer(app)
        self.on(
            "POST",
            "/tenant/oauth2/v2.0/token",
            Reply(body={"token_type": "Bearer", "expires_in": 3599, "access_token": "token-1"}),
        )

    async def start(self) -> None:
        await self._server.start_server()

    async def stop(self) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """Give these answers, in turn, to that method and path (percent-encoded, without query)."""
        self._replies[method, path] = list(replies)

    def calls(self, method: str, path: str = "") -> list[Asked]:
        """What was asked so far by that method, of that path if one is given."""
        return [
            asked
            for asked in self.asked
            if asked.method == method and path in ("", asked.path.partition("?")[0])
        ]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(Asked(request.method, request.raw_path, request.headers, await request.read()))
        queue = self._replies.get((request.method, request.raw_path.partition("?")[0]))
        if not queue:
            return web.json_response(
                {"error": {"code": "itemNotFound", "message": "no such thing"}}, status=404
            )
        reply = queue.pop(0) if len(queue) > 1 else queue[0]
        if reply.gate is not None:
            await reply.gate.wait()
        if reply.drop:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if reply.cut_after is not None:
            assert isinstance(reply.body, bytes)
            assert request.transport is not None
            half = web.StreamResponse(status=reply.status, headers={"Content-Length": str(len(reply.body))})
            await half.prepare(request)
            await half.write(reply.body[: reply.cut_after])
            request.transport.close()
            return half
        if isinstance(reply.body, bytes):
            return web.Response(status=reply.status, body=reply.body, headers=reply.headers)
        if reply.body is None:
            return web.Response(status=reply.status, headers=reply.headers)
        return web.json_response(reply.body, status=reply.status, headers=reply.headers)

"""A chat-completions service that plays back recorded HTTP answers, in the order they were queued."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

JSON: Final = "application/json"


class Request:
    """A request as it arrived."""

    def __init__(self, request: web.Request, body: bytes) -> None:
        self.path = request.path_qs
        self.headers = dict(request.headers)
        self.body = body

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The text part of the first user message."""
        text: str = self.json["messages"][1]["content"][0]["text"]
        return text


class Recorded:
    """The service: queue answers, look at requests."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.url = ""
        self._answers: list[tuple[int, dict[str, str], bytes]] = []

    def answer(self, status: int, body: str | bytes, headers: Mapping[str, str] | None = None) -> None:
        """Queue an answer exactly as it shall go out."""
        data = body.encode() if isinstance(body, str) else body
        self._answers.append((status, {"Content-Type": JSON} | dict(headers or {}), data))

    def completion(
        self,
        content: object,
        *,
        finish_reason: str = "stop",
        refusal: str | None = None,
        usage: tuple[int, int] = (1400, 120),
    ) -> None:
        """Queue a chat completion; `content` that is no text is sent as JSON."""
        text = content if content is None or isinstance(content, str) else json.dumps(content)
        body = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1764000000,
            "model": "test-vision-2026",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish_reason,
                    "message": {"role": "assistant", "content": text, "refusal": refusal},
                    "logprobs": None,
                }
            ],
            "usage": {
                "prompt_tokens": usage[0],
                "completion_tokens": usage[1],
                "total_tokens": sum(usage),
                "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": 765},
            },
            "system_fingerprint": None,
        }
        self.answer(200, json.dumps(body))

    async def handle(self, request: web.Request) -> web.Response:
        """Log the request, give the next answer."""
        self.requests.append(Request(request, await request.read()))
        if not self._answers:
            return web.Response(status=418, text="no answer was queued for this request")
        status, headers, body = self._answers.pop(0)
        return web.Response(status=status, headers=headers, body=body)

    def forget(self) -> None:
        """Drop the queued answers: nobody has to ask for them any more."""
        self._answers.clear()

    @property
    def unused(self) -> int:
        """How many queued answers nobody asked for."""
        return len(self._answers)


@asynccontextmanager
async def serving() -> AsyncIterator[Recorded]:
    """The service on a free port of loopback."""
    recorded = Recorded()
    app = web.Application(client_max_size=8 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", recorded.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        recorded.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield recorded
    finally:
        await runner.cleanup()

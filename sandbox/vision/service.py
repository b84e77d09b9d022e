"""Serve the local analyzer through OpenAI's chat completions.

With it one can order and see what a real model service does (429, 503, resets, slow answers, and the answers
of `sandbox.vision.modes`). Without it the
local analyzer runs inside its agent. The service reads the columns from the request's JSON schema and fills
them as the analyzer does inside the agent.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from sandbox.sharepoint.faults import FaultLine, FaultOrder, Faults, Hit
from sandbox.sharepoint.journal import Journal
from sandbox.vision import modes
from sandbox.vision.modes import MODES
from shared.columns.schema import Column, LibrarySchema
from shared.settings import Settings, load
from shared.vision.answer_schema import SUMMARY
from shared.vision.contract import Answer, PhotoContext
from shared.vision.local.analyzer import LocalAnalyzer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.columns.schema import ColumnKind

PATH: Final = "/v1/chat/completions"
_MAX_BODY: Final = 32 * 1024 * 1024
_CODES: Final = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


class VisionFaultOrder(FaultOrder, frozen=True, kw_only=True):
    """Order a fault of the Graph emulator's kinds, or one of the modes."""

    more_kinds = MODES


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Describe the JSON line that the service prints when it is ready."""

    url: str
    """The value for VISION_URL."""
    model: str
    admin: str
    """Where faults are ordered: ``POST <admin>/fault``."""


class Service:
    """Answer requests, unless a fault was ordered."""

    def __init__(self, analyzer: LocalAnalyzer, faults: Faults) -> None:
        self._analyzer = analyzer
        self._faults = faults
        self._asked = self._answered = 0

    def application(self) -> web.Application:
        """Return the application with its routes."""
        app = web.Application(client_max_size=_MAX_BODY)
        app.add_routes(
            [
                web.post(PATH, self.complete),
                web.get("/v1/models", self.models),
                web.get("/_erni", self.counts),
                web.get("/_erni/fault", self.show_faults),
                web.post("/_erni/fault", self.order_fault),
                web.delete("/_erni/fault", self.heal),
            ]
        )
        return app

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer one chat completion."""
        self._asked += 1
        hit = self._faults.draw("POST", request.path, "")
        body = await request.read()
        if hit is not None:
            self._faults.log(hit, method="POST", path=request.path, request_id="")
            if hit.kind not in MODES and (troubled := await _trouble(hit, request)) is not None:
                return troubled
        try:
            asked = msgspec.json.decode(body)
            preview, text = _picture(asked["messages"]), _text(asked["messages"])
            schema = _library(_properties(asked["response_format"]))
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            return _refused(400, f"the request cannot be read: {error!r}", param="messages")
        try:
            answer = await self._analyzer.describe(preview, schema, _context(text))
        except (OSError, ValueError) as error:
            return _refused(400, f"the picture cannot be read: {error}", param="messages")
        completion = self._completion(schema, answer)
        if hit is not None and hit.kind in MODES:
            status, answered = modes.answer(hit.kind, completion)
            kind = "text/event-stream" if answered.startswith(b"data:") else "application/json"
            return web.Response(body=answered, status=status, content_type=kind)
        self._answered += 1
        return _json(completion)

    def _completion(self, schema: LibrarySchema, answer: Answer) -> dict[str, Any]:
        """Return the answer as a chat completion."""
        return {
            "id": f"chatcmpl-{time.time_ns()}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._analyzer.model,
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {
                        "role": "assistant",
                        "content": _content(schema, answer),
                        "refusal": None,
                    },
                }
            ],
            # it reads no tokens, and costs none
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        }

    async def models(self, _request: web.Request) -> web.Response:
        """List the only model."""
        return _json({"object": "list", "data": [{"id": self._analyzer.model, "object": "model"}]})

    async def counts(self, _request: web.Request) -> web.Response:
        """Report how many completions were requested and how many were answered."""
        return _json({"asked": self._asked, "answered": self._answered})

    async def show_faults(self, _request: web.Request) -> web.Response:
        """List the active faults."""
        return _json({"faults": self._faults.active()})

    async def order_fault(self, request: web.Request) -> web.Response:
        """Start a fault; the body is a `VisionFaultOrder`."""
        try:
            order = msgspec.json.decode(await request.read(), type=VisionFaultOrder)
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, status=400)
        if order.kind == "stale_etag":
            return _json({"error": "there are no eTags here"}, status=400)
        # the default pattern matches Graph's addresses; this service has one address
        order = msgspec.structs.replace(order, match=re.escape(PATH))
        return _json({"id": self._faults.order(order)}, status=201)

    async def heal(self, _request: web.Request) -> web.Response:
        """End all faults."""
        return _json({"healed": self._faults.heal()})


async def _trouble(hit: Hit, request: web.Request) -> web.StreamResponse | None:
    """Return the answer of a fault; None if it only delays the request."""
    match hit.kind:
        case "slow":
            await asyncio.sleep(hit.delay)
            return None
        case "reset":
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        case "garbage":
            return web.Response(
                text="<html><body>a proxy is in the way</body></html>", content_type="text/html"
            )
        case status:
            headers = {} if hit.retry_after is None else {"Retry-After": f"{hit.retry_after:g}"}
            return _refused(
                int(status), "refused on purpose, by `erni fault`", code=hit.code, headers=headers
            )


def _refused(
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Return an error in OpenAI's form."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code or _CODES.get(status)}
    return _json({"error": error}, status=status, headers=headers)


def _json(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json"
    )


def _parts(messages: list[Any]) -> list[dict[str, Any]]:
    """Return the parts of the first user message. Raises ValueError without one."""
    parts: list[dict[str, Any]] | None = next(
        (message["content"] for message in messages if message["role"] == "user"), None
    )
    if parts is None:
        raise ValueError("there is no message of a user")
    return parts


def _picture(messages: list[Any]) -> bytes:
    """Return the picture of the conversation. Raises KeyError or ValueError without one."""
    part = next((part for part in _parts(messages) if part["type"] == "image_url"), None)
    if part is None:
        raise ValueError("there is no image_url")
    return base64.b64decode(part["image_url"]["url"].partition(",")[2], validate=True)


def _text(messages: list[Any]) -> str:
    return "\n".join(part["text"] for part in _parts(messages) if part["type"] == "text")


def _context(text: str) -> PhotoContext:
    """Return the original's size, which the question states and the preview does not show."""
    size = re.search(r"Originalgrösse: (\d+) x (\d+)", text)
    return PhotoContext(width=int(size[1]), height=int(size[2])) if size else PhotoContext()


def _properties(response_format: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of the answer, from either form of the schema."""
    schema = response_format.get("json_schema", response_format)["schema"]
    properties: dict[str, Any] = schema["properties"]
    return properties


def _library(properties: dict[str, Any]) -> LibrarySchema:
    """Return the columns behind the properties, as far as the schema shows them."""
    columns = []
    for key, schema in properties.items():
        if key == SUMMARY:
            continue
        value, description = schema["properties"]["value"], schema.get("description", key)
        kind: ColumnKind = "note"
        choices: list[str | None] = value.get("enum", [])
        if value["type"] == "array":
            kind, choices = "multi_choice", value["items"].get("enum", [])
        elif choices:
            kind = "choice"
        elif "number" in value["type"]:
            kind = "number"
        elif "boolean" in value["type"]:
            kind = "boolean"
        length = re.search(r"höchstens (\d+) Zeichen", description)
        columns.append(
            Column(
                name=key,
                display_name=description.partition(";")[0],
                kind=kind,
                choices=tuple(choice for choice in choices if choice is not None),
                max_length=int(length[1]) if length else None,
            )
        )
    return LibrarySchema(library="", columns=tuple(columns))


def _content(schema: LibrarySchema, answer: Answer) -> str:
    """Return the JSON of the answer, in the order of the schema."""
    content: dict[str, Any] = {SUMMARY: answer.description}
    for column in schema.columns:
        field = answer.fields.get(column.name)
        empty: list[str] | None = [] if column.kind == "multi_choice" else None
        content[column.name] = {
            "value": empty if field is None else field.value,
            "confidence": 0 if field is None else field.confidence,
        }
    return json.dumps(content, ensure_ascii=False)


async def _serve(arguments: argparse.Namespace, settings: Settings) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    analyzer = LocalAnalyzer(settings)
    await analyzer.open()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(arguments.folder / "faults.jsonl", FaultLine)
    service = Service(analyzer, Faults(journal, strict=False, seed=arguments.seed))
    runner = web.AppRunner(service.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", arguments.port).start()
        origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready = Ready(url=f"{origin}/v1", model=analyzer.model, admin=f"{origin}/_erni")
        sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await runner.cleanup()
        await analyzer.close()
        journal.close()


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.vision",
        description="The local analyzer as an OpenAI-compatible service. Prints one JSON line when ready.",
    )
    parser.add_argument("--folder", type=Path, required=True, help="where faults.jsonl is kept")
    parser.add_argument("--port", type=int, default=0, help="0 (default): a free one")
    parser.add_argument("--seed", type=int, default=0, help="of which requests a fault's share hits")
    asyncio.run(_serve(parser.parse_args(), load()))

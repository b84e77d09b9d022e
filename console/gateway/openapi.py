"""Describes `/v1` as an OpenAPI 3.1 document: ``python -m console.gateway.openapi`` prints it.

It is made of the types of the events and the answers; docs/openapi.json is a copy.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any, Final

import msgspec
from aiohttp import web

from console.gateway import answers, cloud_events, dead_api, problems, webhooks_api
from console.gateway.events_api import MAX_BATCH
from console.gateway.photos_api import FIELDS
from console.gateway.steps import StepView
from console.sessions import SessionView
from events import asyncapi, identities, limits
from events.types import PhotoSubmitted, SessionReported

VERSION: Final = "1"
_REF: Final = "#/components/schemas/{name}"
_TYPES: Final = (
    PhotoSubmitted,
    answers.Accepted,
    answers.AcceptedBatch,
    answers.PhotoView,
    answers.Close,
    answers.Closed,
    dead_api.Replay,
    dead_api.Replaying,
    dead_api.OperationView,
    webhooks_api.WebhooksView,
    SessionReported,
    SessionView,
    StepView,
    problems.ProblemDocument,
)
_ALWAYS: Final = ("401", "403", "429", "500", "503")
_EXAMPLE: Final = {
    "specversion": "1.0",
    "id": "order-7/1",
    "source": "urn:camera-app",
    "type": "photo.submitted",
    "datacontenttype": "application/json",
    "sessionid": "seewen-2026-05-12",
    "data": {"source_url": "https://photos.example.org/a.jpg", "hints": {"project": "Wohnhaus Seewen"}},
}


def document() -> dict[str, Any]:
    """Return the document as plain data."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template=_REF)
    limits.restrict(schemas)
    schemas["CloudEvent"] = _cloud_event()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Erni Foto Agency",
            "version": VERSION,
            "description": "Publish photos and follow them. Every answer that is no success is a problem"
            " document (RFC 9457).",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "http://localhost:8085"}],
        "security": [{"key": []}],
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key that `erni key add` printed.",
                }
            },
        },
    }


def _cloud_event() -> dict[str, Any]:
    text = {"type": "string", "minLength": 1}
    optional = {"type": ["string", "null"], "minLength": 1}
    return {
        "title": "CloudEvent",
        "description": "A CloudEvent 1.0 of the type photo.submitted. Other attributes travel along.",
        "type": "object",
        "required": ["specversion", "id", "source", "type", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {**text, "maxLength": limits.MAX_EVENT_ID},
            "source": {**text, "maxLength": limits.MAX_SOURCE, "format": "uri-reference"},
            "type": {"const": "photo.submitted"},
            "datacontenttype": {"type": ["string", "null"], "description": "application/json, the default"},
            "subject": {**optional, "description": "The photo's id, where data has none."},
            "sessionid": {**optional, "description": "The session's id, where data has none."},
            "time": {**optional, "format": "date-time"},
            "traceparent": {**optional, "description": "W3C Trace Context: the photo's trace."},
            "data": {"$ref": _REF.format(name="PhotoSubmitted")},
        },
        "additionalProperties": {"type": ["string", "boolean", "integer", "null"]},
        "examples": [_EXAMPLE],
    }


def _paths() -> dict[str, Any]:
    return {
        "/v1/events": {"post": _publish(), "options": _handshake()},
        "/v1/photos": {"post": _upload()},
        "/v1/photos/{id}": {
            "get": _operation(
                "getPhoto",
                "One photo and its way so far",
                "PhotoView",
                ("304", "400", "404"),
                [_path_id("photo", "p-1")],
            )
        },
        "/v1/sessions/{id}": {
            "get": _operation(
                "getSession",
                "The counters of a session",
                "SessionView",
                ("304", "400", "404"),
                [_path_id("session", "seewen-12-may")],
            )
        },
        "/v1/sessions/{id}/close": {
            "post": _operation(
                "closeSession",
                "Set how many photos were published into a session",
                "Closed",
                ("400", "404", "408", "413", "415"),
                [_path_id("session", "seewen-12-may")],
                body={"application/json": {"schema": {"$ref": _REF.format(name="Close")}}},
            )
        },
        "/v1/sessions/{id}/report": {"get": _report()},
        "/v1/dead/replay": {"post": _replay()},
        "/v1/operations/{id}": {
            "get": _operation(
                "getOperation",
                "How far an operation on many dead letters has come",
                "OperationView",
                ("404",),
                [_path_id("operation", "19a0b1c2d3e4f5a6b7c8")],
            )
        },
        "/v1/webhooks": {
            "get": _operation(
                "getWebhooks",
                "The web hooks, how their deliveries go, and when the next try is",
                "WebhooksView",
                (),
                [],
            )
        },
        "/v1/stream": {"get": _stream()},
        "/v1/openapi.json": {"get": _document("getOpenapi", "This document")},
        "/v1/asyncapi.json": {"get": _document("getAsyncapi", "The events in Redis (AsyncAPI 3.0)")},
        "/v1/problems/{name}": {
            "get": {
                "operationId": "getProblem",
                "summary": "What a kind of problem means, and what to do",
                "security": [],
                "parameters": [
                    {
                        "name": "name",
                        "in": "path",
                        "required": True,
                        "schema": {"enum": list(problems.KINDS)},
                    }
                ],
                "responses": {
                    "200": {"description": "The explanation", "content": {"text/plain": {}}},
                    **_problems(("404",)),
                },
            }
        },
    }


def _publish() -> dict[str, Any]:
    event = {"$ref": _REF.format(name="CloudEvent")}
    operation = _operation(
        "publishEvents",
        "Publish photos as CloudEvents: one (binary or structured mode) or a batch of one source",
        "Accepted",
        ("400", "408", "413", "415", "422"),
        [
            {
                "name": f"ce-{name}",
                "in": "header",
                "description": "Binary mode only: the attribute, percent-encoded.",
                "schema": {"type": "string"},
            }
            for name in ("specversion", "id", "source", "type", "subject", "time", "sessionid")
        ],
        status="202",
        body={
            cloud_events.STRUCTURED: {"schema": event},
            cloud_events.BATCH: {"schema": {"type": "array", "maxItems": MAX_BATCH, "items": event}},
            "application/json": {"schema": {"$ref": _REF.format(name="PhotoSubmitted")}},
        },
    )
    content = operation["responses"]["202"]["content"]["application/json"]
    content["schema"] = {"anyOf": [content["schema"], {"$ref": _REF.format(name="AcceptedBatch")}]}
    return operation


def _document(name: str, summary: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": "The document", "content": {"application/json": {}}}},
    }


def _report() -> dict[str, Any]:
    operation = _operation(
        "getReport",
        "The report of a session that is complete: a page for people, or its lists as JSON (Accept)",
        "SessionReported",
        ("304", "400", "404"),
        [_path_id("session", "seewen-12-may")],
    )
    operation["responses"]["200"]["content"]["text/html"] = {"schema": {"type": "string"}}
    return operation


def _replay() -> dict[str, Any]:
    operation = _operation(
        "replayDeadLetters",
        "Replay the dead letters that a filter selects, in the background; or count them (dry_run)",
        "Replaying",
        ("400", "408", "413"),
        [],
        body={"application/json": {"schema": {"$ref": _REF.format(name="Replay")}}},
    )
    operation["responses"]["202"] = {**operation["responses"]["200"], "description": "It is ordered"}
    operation["responses"]["200"] = {
        **operation["responses"]["200"],
        "description": "A dry run, or nothing matches: nothing is replayed",
    }
    return operation


def _stream() -> dict[str, Any]:
    operation = _operation(
        "followStream",
        "What happens from now on to the photos of a session or a source: each step and each end",
        "StepView",
        ("400",),
        [
            {
                "name": "session",
                "in": "query",
                "description": "The session's id; this or the source is needed.",
                "schema": {"type": "string"},
            },
            {
                "name": "source",
                "in": "query",
                "description": "Who published the photos. Without a session it has ends only, no steps.",
                "schema": {"type": "string", "format": "uri-reference"},
            },
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "The id of the last event that was received: those after it come first."
                " 0: all ends that are kept.",
                "schema": {"type": "string"},
            },
        ],
    )
    operation["responses"]["200"] = {
        "description": "Server-sent events until one side ends it. `photo.validated`, `photo.failed` and"
        " `session.reported` have a CloudEvent in JSON as their data (asyncapi.json says of what), and an id;"
        " `step` has a StepView and no id.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
    return operation


def _handshake() -> dict[str, Any]:
    return {
        "operationId": "agreeToDelivery",
        "summary": "The handshake of CloudEvents web hooks",
        "security": [],
        "parameters": [
            {"name": "WebHook-Request-Origin", "in": "header", "schema": {"type": "string"}},
            {"name": "WebHook-Request-Rate", "in": "header", "schema": {"type": "string"}},
        ],
        "responses": {
            "200": {
                "description": "Events may be delivered, at this rate (requests a minute)",
                "headers": {
                    name: {"schema": {"type": "string"}}
                    for name in ("Allow", "WebHook-Allowed-Origin", "WebHook-Allowed-Rate")
                },
            }
        },
    }


def _upload() -> dict[str, Any]:
    texts = {name: {"type": "string"} for name in FIELDS}
    binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    return _operation(
        "uploadPhoto",
        "Store the bytes of a photo and publish it",
        "Accepted",
        ("400", "408", "409", "413", "415", "422"),
        [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "The event's id. By default the same file in the same session is one photo.",
                "schema": {"type": "string", "maxLength": limits.MAX_EVENT_ID},
            },
            *({"name": name, "in": "query", "schema": {"type": "string"}} for name in FIELDS),
        ],
        status="202",
        body={
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["photo"],
                    "properties": {**texts, "photo": binary["schema"]},
                }
            },
            **dict.fromkeys(("image/jpeg", "image/png", "image/webp", "image/heic"), binary),
        },
    )


def _operation(
    name: str,
    summary: str,
    answer: str,
    others: tuple[str, ...],
    parameters: list[dict[str, Any]],
    *,
    status: str = "200",
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": name, "summary": summary, "parameters": parameters}
    if body is not None:
        found["requestBody"] = {"content": body}
    found["responses"] = {
        status: {
            "description": "Redis has it" if status == "202" else "The answer",
            "content": {"application/json": {"schema": {"$ref": _REF.format(name=answer)}}},
        },
        **_problems(tuple(sorted({*others, *_ALWAYS}))),
    }
    return found


def _problems(statuses: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status in statuses:
        titles = [kind.title for kind in problems.KINDS.values() if str(kind.status) == status]
        if not titles:
            found[status] = {"description": "Nothing has changed since the entity tag"}
            continue
        found[status] = {
            "description": "; ".join(titles),
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="ProblemDocument")}}},
        }
    return found


def _path_id(what: str, example: str) -> dict[str, Any]:
    return {
        "name": "id",
        "in": "path",
        "required": True,
        "description": f"The {what}'s id.",
        "example": example,
        "schema": {"type": "string", "pattern": f"^{identities.ID_PATTERN}$"},
    }


@cache
def text() -> str:
    """Return the document as docs/openapi.json holds it."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


async def serve(_request: web.Request) -> web.Response:
    """Answer with the document."""
    return web.Response(text=text(), content_type="application/json")


async def serve_events(_request: web.Request) -> web.Response:
    """Answer with the AsyncAPI document of the events."""
    return web.Response(text=_events(), content_type="application/json")


@cache
def _events() -> str:
    return asyncapi.text()


if __name__ == "__main__":
    sys.stdout.write(text())

"""Describes the wire as an AsyncAPI 3.0 document: ``python -m events.asyncapi`` prints it.

It is made of the topology and the event types, so it cannot differ from them; docs/asyncapi.json is a copy.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import sys
from typing import Any, Final

import msgspec

from . import limits, topology, types
from .keys import Keys

VERSION: Final = "1"
"""Of the contract: it changes when an event type changes incompatibly (docs/events.md)."""

_ATTRIBUTES: Final = {
    "id": "Identity of the event, together with `source`: both again within 24 hours are one event.",
    "source": "Who published the event, a URI reference.",
    "type": "The event type, which is also the stream's name.",
    "specversion": "1.0",
    "time": "RFC 3339, when the event was made.",
    "subject": "The photo's id.",
    "datacontenttype": "application/json",
    "sessionid": "The session's id.",
    "erniphotoref": "`store:` address of the photo's bytes, where there are any.",
    "dataref": "As `erniphotoref`, for one release more: CloudEvents uses this name for `data` itself.",
    "traceparent": "W3C Trace Context.",
    "tracestate": "W3C Trace Context.",
    "ernionce": "Fingerprint of the content (`sha256:…` or `sha1:…`), written by the publishing script.",
    "ernisteps": "JSON list of the agents so far (Step). Written by agents only.",
    "ernireplay": "`<times> <traceparent>`, written when a dead letter is replayed.",
    "ernidelayed": "`<first, ms>:<deliveries>:<times>`, written when a postponed entry comes back.",
}
_DEAD: Final = {
    "raw": "The original fields byte for byte: MessagePack array name, value, name, value, …",
    "agent": "Who could not process it.",
    "stream": "The event type it came as.",
    "entry": "Its entry id there.",
    "consumer": "The process.",
    "reason": "exhausted, permanent, undecodable or delivery_limit.",
    "error_type": "The kind of error.",
    "message": "What went wrong, a sentence.",
    "fingerprint": "Equal for failures of the same kind.",
    "attempts": "JSON list of the attempts with their times and messages.",
    "deliveries": "How often it was delivered.",
    "first_failed_at": "Unix time in seconds.",
    "failed_at": "Unix time in seconds.",
    "traceparent": "Of the span that failed.",
    "version": "Of the code that failed.",
    "replays": "How often it had been replayed.",
    "answer": "The beginning of what a model answered, where that was the cause.",
    "cause": "A code for what is to blame: file, source, library, vision, filing or readback.",
    "photo": "The photo's id, if the entry could be read.",
    "session": "The session's id, if it was in one.",
    "file_name": "What people call the photo.",
}


def document() -> dict[str, Any]:
    """Return the AsyncAPI document as plain data."""
    _, schemas = msgspec.json.schema_components(
        topology.TYPES.values(), ref_template="#/components/schemas/{name}"
    )
    for name, schema in schemas.items():
        _describe(schema, _field_docs(getattr(types, name)))
    limits.restrict(schemas)
    schemas["Attributes"] = _texts("The fields of an entry beside `data`. None is required.", _ATTRIBUTES)
    for name, rules in limits.ATTRIBUTES.items():
        schemas["Attributes"]["properties"][name] |= rules
    schemas["DeadLetter"] = _texts("The fields of a dead letter.", _DEAD)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Erni Foto Agency",
            "version": VERSION,
            "description": "Photo events on Redis Streams: CloudEvents 1.0 in binary form, an entry an event,"
            " its attributes and `data` (JSON) as fields. With LANES=N every key carries its lane"
            " after `erni:`, as in `erni:{1}:photo.submitted`.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {"redis": {"host": "localhost:6379", "protocol": "redis"}},
        "channels": {**_event_channels(), **_dead_channels()},
        "operations": _operations(),
        "components": {
            "messages": {
                name: {
                    "name": name,
                    "title": struct.__name__,
                    "summary": _first_line(struct),
                    "contentType": "application/json",
                    "headers": {"$ref": "#/components/schemas/Attributes"},
                    "payload": {"$ref": f"#/components/schemas/{struct.__name__}"},
                }
                for name, struct in topology.TYPES.items()
            }
            | {"dead": {"name": "dead", "payload": {"$ref": "#/components/schemas/DeadLetter"}}},
            "schemas": schemas,
        },
    }


def _event_channels() -> dict[str, Any]:
    return {
        name: {
            "address": Keys().stream(name),
            "description": _role(name),
            "messages": {"event": {"$ref": f"#/components/messages/{name}"}},
        }
        for name in topology.TYPES
    }


def _role(name: str) -> str:
    if name == topology.INTAKE:
        return "Where upstream systems publish. Entries are deleted when they are handed off."
    if name in topology.PUBLIC:
        return "For everybody to read, each with a consumer group of its own; kept for seven days."
    if name == topology.QUEUED:
        return "Between agents and the notifier: notices that wait to be posted to web hooks."
    return "Between two agents: only its agent reads it."


def _dead_channels() -> dict[str, Any]:
    return {
        f"dead.{agent}": {
            "address": Keys().dead(agent),
            "description": f"What {agent} could not process; stays until somebody replays or discards it.",
            "messages": {"dead": {"$ref": "#/components/messages/dead"}},
        }
        for agent in topology.CONSUMERS
    }


def _operations() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage in topology.STAGES:
        for name in stage.reads:
            found[f"{stage.agent}.reads.{name}"] = _operation("receive", name, "event", stage.agent)
        for name in stage.writes:
            found[f"{stage.agent}.writes.{name}"] = _operation("send", name, "event", stage.agent)
        for name in (topology.FAILED, topology.QUEUED) if stage.about_photos else ():
            found[f"{stage.agent}.writes.{name}"] = _operation("send", name, "event", stage.agent)
        found[f"{stage.agent}.gives.up"] = _operation("send", f"dead.{stage.agent}", "dead", stage.agent)
    found["session.completes"] = _operation("send", topology.COMPLETED, "event", "session")
    return found


def _operation(action: str, channel: str, message: str, who: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
        "tags": [{"name": who}],
    }


def _texts(description: str, fields: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "properties": {name: {"type": "string", "description": text} for name, text in fields.items()},
    }


def _first_line(struct: type[msgspec.Struct]) -> str:
    return (inspect.getdoc(struct) or "").partition("\n")[0]


def _field_docs(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the docstring below each field in the source, including the fields of the bases."""
    docs: dict[str, str] = {}
    for cls in reversed(struct.__mro__):
        if cls.__module__ != types.__name__:
            continue
        [body] = (
            node.body for node in ast.parse(inspect.getsource(cls)).body if isinstance(node, ast.ClassDef)
        )
        for field, below in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                docs[field.target.id] = inspect.cleandoc(str(below.value.value))
    return docs


def _describe(schema: dict[str, Any], docs: dict[str, str]) -> None:
    for name, text in docs.items():
        field = schema["properties"][name]
        # beside a $ref a description would be lost
        if "$ref" not in field:
            field["description"] = text


def text() -> str:
    """Return the document as docs/asyncapi.json holds it."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())

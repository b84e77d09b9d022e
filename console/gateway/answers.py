"""The JSON documents that `/v1` answers, as types; the OpenAPI document is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from aiohttp import web

from shared.delivery.photo_record import AgentPart

if TYPE_CHECKING:
    from collections.abc import Mapping


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """An event that Redis has: it was published now, or before."""

    event_id: str
    photo_id: str
    session_id: str | None
    entry_id: str
    """The id of its stream entry."""
    trace_id: str | None
    """32 hex digits; null for a repetition whose photo has no record any more."""
    replayed: bool
    """True: the same event was published before, and nothing was done now."""
    photo: str
    """Where to follow the photo, such as ``/v1/photos/p-1``."""


class AcceptedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The events of a batch, in its order."""

    events: list[Accepted]


class PhotoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the library, as it was read back."""

    verdict: Literal["ok", "needs_person"]
    name: str
    web_url: str
    outcome: Literal["created", "replaced", "unchanged"]
    needs_person: list[str]
    """The columns that a person must check."""


class PhotoView(msgspec.Struct, frozen=True, kw_only=True):
    """One photo and its way so far."""

    photo_id: str
    session_id: str | None
    file_name: str | None
    status: str
    """``validated``, ``dead``, ``postponed`` or ``on its way to <agent>``."""
    trace_id: str
    trace: str
    """Where people look at the trace; '' if there is none."""
    submitted_at: float | None
    """Unix time in seconds; null for a photo that did not come over HTTP."""
    agents: list[AgentPart]
    """By agent: what it last did with the photo."""
    unknown_fields: list[str]
    result: PhotoResult | None
    """Null until the photo is validated, and when its report is not kept any more."""


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """How many photos a session has from now on."""

    session_id: str
    expected: int
    received: int


class Close(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many photos were published into the session."""

    expected: int | None = None
    """By default as many as have come in."""


def json_answer(
    document: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a response with a JSON document that no cache keeps."""
    return web.Response(
        body=msgspec.json.encode(document) + b"\n",
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "private, no-store", **(headers or {})},
    )

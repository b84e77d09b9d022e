"""Says what is wrong with a request: RFC 9457 problem documents, each kind with a page of its own.

The `type` of a problem is an address of this server, where the kind is explained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAGES: Final = "/v1/problems/"
MEDIA_TYPE: Final = "application/problem+json"


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of problem."""

    name: str
    status: int
    title: str
    help: str
    """What the sender can do, for the page of the kind."""


def _kind(name: str, status: int, title: str, remedy: str) -> Kind:
    return Kind(name=name, status=status, title=title, help=remedy)


NOT_A_CLOUDEVENT: Final = _kind(
    "not-a-cloudevent",
    400,
    "This is no CloudEvent",
    "Send a CloudEvent 1.0 as the HTTP binding 1.0.2 says: its attributes as headers `ce-*` and its data as"
    " the body, or all of it as application/cloudevents+json.",
)
EVENT_REFUSED: Final = _kind(
    "event-refused",
    400,
    "The event cannot be published",
    "The event is a CloudEvent, but no photo.submitted event that an agent could process. Correct what the"
    " sentence names; docs/events.md lists the fields.",
)
BATCH_REFUSED: Final = _kind(
    "batch-refused",
    400,
    "None of the events was published",
    "Each entry of `errors` points at an event of the batch and says what is wrong with it. Correct these, or"
    " leave them out, and send the batch again.",
)
BAD_REQUEST: Final = _kind(
    "bad-request", 400, "The request cannot be used", "Correct what the sentence names."
)
IDEMPOTENCY_KEY_MISSING: Final = _kind(
    "idempotency-key-missing",
    400,
    "The header Idempotency-Key is missing",
    "Send the header Idempotency-Key with an id of your own for each photo: a repeated request is then one"
    " photo.",
)
KEY_MISSING: Final = _kind(
    "key-missing",
    401,
    "A key is needed",
    "Send the header `Authorization: Bearer KEY`. `erni key add` makes a key.",
)
KEY_UNKNOWN: Final = _kind(
    "key-unknown",
    401,
    "The key is not known",
    "The key is misspelt or was removed. `erni key list` shows the keys there are, `erni key add` makes one.",
)
ROLE_TOO_LOW: Final = _kind(
    "role-too-low",
    403,
    "The key's role does not allow this",
    "Use a key with another role: `erni key add NAME --role …`.",
)
SOURCE_NOT_ALLOWED: Final = _kind(
    "source-not-allowed",
    403,
    "The key belongs to another source",
    "A publisher's key publishes for one source. Send the event with that source, or use the key of the"
    " other one.",
)
NOT_FOUND: Final = _kind(
    "not-found", 404, "There is nothing here", "Check the address; records are kept for a limited time."
)
METHOD_NOT_ALLOWED: Final = _kind(
    "method-not-allowed", 405, "This address has no such method", "The header Allow lists those it has."
)
BODY_TOO_SLOW: Final = _kind(
    "body-too-slow", 408, "The body did not come in time", "Send the request again, over a better line."
)
STILL_STORED: Final = _kind(
    "still-stored",
    409,
    "The same upload is still being stored",
    "Another request with this Idempotency-Key is in the middle of its upload. Send this one again in a"
    " moment; it gets the answer of the first.",
)
TOO_LARGE: Final = _kind(
    "too-large",
    413,
    "There are too many bytes",
    "Send less at a time: fewer events in a batch, a smaller photo. Bytes of a photo go to POST /v1/photos.",
)
MEDIA_TYPE_UNKNOWN: Final = _kind(
    "media-type-unknown",
    415,
    "The content is of a kind that is not taken",
    "Send JSON (application/json, application/cloudevents+json or application/cloudevents-batch+json) to"
    " /v1/events, and a JPEG, PNG, WebP or HEIC photo to /v1/photos.",
)
IDEMPOTENCY_KEY_REUSED: Final = _kind(
    "idempotency-key-reused",
    422,
    "The id was used before with other content",
    "CloudEvents identifies an event by source and id. Give another photo another id, and repeat an event"
    " unchanged.",
)
TOO_MANY_REQUESTS: Final = _kind(
    "too-many-requests",
    429,
    "The key has used up its requests for this minute",
    "Wait as long as the header Retry-After says. Batches of events need fewer requests.",
)
TOO_MANY_STREAMS: Final = _kind(
    "too-many-streams",
    429,
    "There are too many open streams",
    "Close a stream that is not needed any more. One stream of a source has the events of all its sessions.",
)
INTERNAL_ERROR: Final = _kind(
    "internal-error",
    500,
    "The server made a mistake",
    "The log of the gateway has the details. A repeated event is published once.",
)
NO_ROOM: Final = _kind(
    "no-room",
    503,
    "There is no room for new photos now",
    "Send the request again after the seconds in the header Retry-After. No event is published twice.",
)
REDIS_AWAY: Final = _kind(
    "redis-away",
    503,
    "Redis cannot be used now",
    "Send the request again after the seconds in the header Retry-After. No event is published twice.",
)
STORE_AWAY: Final = _kind(
    "store-away",
    503,
    "The photo store cannot be used now",
    "Send the request again after the seconds in the header Retry-After. No photo is published twice.",
)

KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind for kind in list(globals().values()) if isinstance(kind, Kind)
}


class ProblemError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong, and where."""

    detail: str
    pointer: str = ""
    """JSON pointer (RFC 6901) into the body, or the name of a header."""
    type: str = ""
    """The kind of this problem, where a batch has several."""


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of an answer that is no success (RFC 9457)."""

    type: str
    """Address of a page about this kind of problem."""
    title: str
    status: int
    detail: str
    """What is wrong with this request, and what to do."""
    errors: list[ProblemError] = []


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """Raised where a request cannot be answered as it was meant."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        errors: Sequence[ProblemError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.errors = list(errors)
        self.headers = dict(headers or {})

    def answer(self) -> web.Response:
        """Return the response."""
        document = ProblemDocument(
            type=PAGES + self.kind.name,
            title=self.kind.title,
            status=self.kind.status,
            detail=str(self),
            errors=self.errors,
        )
        return web.Response(
            body=msgspec.json.encode(document) + b"\n",
            status=self.kind.status,
            content_type=MEDIA_TYPE,
            headers={"Cache-Control": "no-store", **self.headers},
        )


async def page(request: web.Request) -> web.Response:
    """Explain one kind of problem. Raises Problem for a kind there is not."""
    kind = KINDS.get(request.match_info["name"])
    if kind is None:
        raise Problem(NOT_FOUND, f"there is no problem of that name: {', '.join(KINDS)}")
    return web.Response(text=f"{kind.title} ({kind.status})\n\n{kind.help}\n")

"""Says an end in a notice: a small JSON document with ids, the verdict or the reason, and links.

A notice holds no field of the photo: whoever wants more asks the gateway by the links, with its own key.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from events.types import PhotoFailed, PhotoValidated, SessionReported

if TYPE_CHECKING:
    from collections.abc import Callable

    from events.types import Event

EVENTS: Final = ("photo.validated", "photo.failed", "session.reported")
"""The ends a web hook can want."""
MAX_BODY: Final = 20_000
"""Bytes: Standard Webhooks 1.0.0, § Payload size, recommends less than 20 kB."""
_MESSAGE: Final = 1000
_NAME: Final = 256
_LINK: Final = 2000
"""Characters of an address that is passed on; a longer one is left out."""


class Photo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold what the notices about a photo have in common."""

    photo_id: str
    session_id: str | None = None
    file_name: str | None = None
    links: dict[str, str]
    """``photo``: path on the gateway; ``sharepoint``: the item."""


class ValidatedPhoto(Photo, frozen=True, kw_only=True, omit_defaults=True):
    """Hold the data of `photo.validated`."""

    verdict: str
    needs_person: int = 0
    """Columns that a person must check."""
    site: str
    library: str
    item_id: str


class FailedPhoto(Photo, frozen=True, kw_only=True, omit_defaults=True):
    """Hold the data of `photo.failed`, as the event has it."""

    agent: str
    reason: str
    cause: str = ""
    message: str
    replays: int = 0
    failed_at: float


class ReportedSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold the data of `session.reported`: numbers of photos, and how often the session was completed."""

    session_id: str
    completion: int
    validated: int
    dead: int
    needs_person: int = 0
    """Photos with a column that a person must check; 100: so many or more."""
    links: dict[str, str]
    """``session`` and ``report``: paths on the gateway."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the document that is posted, in the form that Standard Webhooks recommends."""

    type: str
    timestamp: str
    """When the end came, RFC 3339 in UTC."""
    data: ValidatedPhoto | FailedPhoto | ReportedSession


def body(event: Event, event_type: str) -> str:
    """Return the document about an end. Raises KeyError for an event that is none."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode(
        Notice(type=event_type, timestamp=now, data=_DATA[type(event)](event))
    ).decode()


def _validated(event: PhotoValidated) -> ValidatedPhoto:
    return ValidatedPhoto(
        photo_id=event.photo_id,
        session_id=event.session_id,
        file_name=_cut(event.file_name),
        verdict=event.verdict,
        needs_person=len(event.needs_person),
        site=event.library.site[:_NAME],
        library=event.library.library[:_NAME],
        item_id=event.item.item_id,
        links=_photo_links(event.photo_id)
        | ({"sharepoint": event.item.web_url} if len(event.item.web_url) <= _LINK else {}),
    )


def _failed(event: PhotoFailed) -> FailedPhoto:
    return FailedPhoto(
        photo_id=event.photo_id,
        session_id=event.session_id,
        file_name=_cut(event.file_name),
        agent=event.agent,
        reason=event.reason,
        cause=event.cause,
        message=event.message[:_MESSAGE],
        replays=event.replays,
        failed_at=event.failed_at,
        links=_photo_links(event.photo_id),
    )


def _reported(event: SessionReported) -> ReportedSession:
    path = f"/v1/sessions/{quote(event.session_id, safe='')}"
    return ReportedSession(
        session_id=event.session_id,
        completion=event.completion,
        validated=event.validated,
        dead=event.dead,
        needs_person=len(event.needs_person),
        links={"session": path, "report": f"{path}/report"},
    )


_DATA: Final[dict[type[Event], Callable[..., ValidatedPhoto | FailedPhoto | ReportedSession]]] = {
    PhotoValidated: _validated,
    PhotoFailed: _failed,
    SessionReported: _reported,
}


def _photo_links(photo_id: str) -> dict[str, str]:
    return {"photo": f"/v1/photos/{quote(photo_id, safe='')}"}


def _cut(name: str | None) -> str | None:
    return name[:_NAME] if name else None

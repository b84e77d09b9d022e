"""Keeps one photo's report as JSON in the photo store, for a session's page and `erni photo show`.

Keys: ``reports/<session_id>/photos/<photo_id>.json``; photos without a session lie below ``reports/-/``
(an id never starts with a dash), so one listing of a prefix returns a session's photos.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import msgspec

from events.identities import PhotoId, SessionId, Sha256, StoreUrl
from events.types import (
    Analysis,
    FieldText,
    FieldVerdict,
    NeedsPerson,
    Record,
    Source,
    Step,
    StoredItem,
)
from shared.columns.schema import ColumnKind
from shared.photo_store import SCHEME, BlobMissingError

if TYPE_CHECKING:
    from shared.photo_store import BlobStore

# Each small file is one round trip to the store: enough of them in flight hide an object store's latency.
_READS_AT_ONCE = 32


class FieldReport(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Hold one column of one photo: what we found, what we sent, what is stored."""

    column: str
    """The internal name."""
    display_name: str
    kind: ColumnKind
    required: bool = False
    value: FieldText = None
    source: Source | None = None
    """None: nothing was found for this column."""
    confidence: float | None = None
    sent: FieldText = None
    stored: FieldText = None
    same: bool = True
    cause: Literal["edited", "altered", "repaired"] | None = None
    """Why stored differs from sent: a person edited it since our write (kept); SharePoint stores something
    else, also after a repair. ``repaired``: it differed, and one repair put it right."""


class PhotoReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Describe one photo from its source to the read-back item. It has no positions and no URL query."""

    photo_id: PhotoId
    session_id: SessionId | None = None
    file_name: str | None = None
    source: str
    """The source's address without userinfo, query and fragment."""
    sha256: Sha256
    size: int
    """Bytes."""
    media_type: str
    width: int
    """Pixels as people see it, the orientation applied."""
    height: int
    taken_at: str | None = None
    camera: str | None = None
    library: str
    library_url: str
    item: StoredItem
    file_same: bool | None = None
    """Whether the stored bytes are the original's; None while SharePoint reports no hash."""
    fields: list[FieldReport]
    needs_person: list[NeedsPerson] = []
    verdict: Literal["ok", "needs_person"]
    analysis: Analysis
    cost: float | None = None
    """Of this photo's vision call, in `currency`; None where the model has no known price."""
    currency: str = ""
    steps: list[Step] = []
    trace_id: str = ""
    """32 hex digits, or nothing."""
    preview_ref: StoreUrl
    checked_at: float
    """Unix time in seconds."""
    time_zone: str = "Europe/Zurich"
    """The site's zone (IANA), in which the page shows times."""

    @property
    def verdicts(self) -> dict[str, FieldVerdict]:
        """Return the comparison for the event, by internal name: the columns something was sent for."""
        return {
            field.column: FieldVerdict(sent=field.sent, stored=field.stored, same=field.same)
            for field in self.fields
            if field.sent is not None
        }


def session_prefix(session_id: SessionId | None) -> str:
    """Return the key below which all reports of a session lie."""
    return f"reports/{session_id or '-'}/"


def photo_key(session_id: SessionId | None, photo_id: PhotoId) -> str:
    """Return the key of one photo's report."""
    return f"{session_prefix(session_id)}photos/{photo_id}.json"


async def write_photo_report(store: BlobStore, report: PhotoReport) -> StoreUrl:
    """Write the report over an earlier one of the same photo."""
    body = msgspec.json.format(msgspec.json.encode(report), indent=1)
    return await store.replace(photo_key(report.session_id, report.photo_id), body)


async def read_photo_report(store: BlobStore, url: str) -> PhotoReport:
    """Read the report at a ``store:`` URL. Raises BlobMissingError, msgspec.ValidationError."""
    return msgspec.json.decode(await store.get(url), type=PhotoReport)


async def photos_of_session(store: BlobStore, session_id: SessionId | None) -> list[PhotoReport]:
    """Read every photo report of a session, in the order of file names and ids."""
    prefix = session_prefix(session_id) + "photos/"
    room = asyncio.Semaphore(_READS_AT_ONCE)

    async def read(key: str) -> PhotoReport | None:
        async with room:
            try:
                return await read_photo_report(store, SCHEME + key)
            except BlobMissingError:
                # retention or `erni session forget` removed it first
                return None

    keys = [key async for key in store.keys(prefix) if key.endswith(".json")]
    found = [report for report in await asyncio.gather(*map(read, keys)) if report is not None]
    return sorted(found, key=lambda report: (report.file_name or "", report.photo_id))


def trace_id_of(traceparent: str) -> str:
    """Return the trace id of a W3C ``traceparent`` (version-trace-parent-flags), or ''."""
    parts = traceparent.split("-")
    valid = len(parts) >= 4 and len(parts[1]) == 32 and parts[1].strip("0")
    return parts[1] if valid and all(digit in "0123456789abcdef" for digit in parts[1]) else ""

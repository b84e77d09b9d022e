"""The event types. Each carries what later agents need, so that no agent asks another one.

Times are RFC 3339 text in UTC unless said otherwise. References are ``store:`` URLs; bytes never travel.
Readers ignore unknown fields (a rolling upgrade mixes old and new processes); only the publisher refuses
them.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from .identities import PhotoId, SchemaDigest, SessionId, Sha256, StoreUrl

MAX_EXPECTED: Final = 10_000_000
"""Photos in a session."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What every struct on the wire has in common: immutable, named fields, defaults left out."""


class Target(Record, frozen=True, kw_only=True):
    """Names the library for a photo. The settings supply what is missing."""

    site: str | None = None
    """A site path such as ``/sites/Bau`` or its full address."""
    library: str | None = None
    """The library's display name, for example ``Referenzfotos``."""


class Hints(Record, frozen=True, kw_only=True):
    """Holds what the upstream knows about a photo. Only the analyzer describes its content."""

    project: str | None = None
    place: str | None = None
    photographer: str | None = None
    taken_at: str | None = None
    """RFC 3339 date or date and time; without a zone it is read as local time of the site."""
    text: str | None = None
    """Any other information, in words, for the analyzer to read."""


class LibraryRef(Record, frozen=True, kw_only=True):
    """Identifies one SharePoint library. The ids are Microsoft Graph's."""

    site_id: str
    list_id: str
    drive_id: str
    site: str
    """The site as it was requested, for people to read."""
    library: str
    web_url: str


class ExifFacts(Record, frozen=True, kw_only=True):
    """Holds what the photo's EXIF contains. Positions are personal: they stay in the store (`reference`)."""

    taken_at: str | None = None
    """RFC 3339; with an offset if the camera noted one, else local time without zone."""
    camera: str | None = None
    has_position: bool = False
    reference: StoreUrl | None = None
    """JSON of all facts, the position included (`shared.photos.exif.PhotoFacts`)."""


Source: TypeAlias = Literal["exif", "hint", "vision", "default"]
FieldText: TypeAlias = str | bool | int | float | list[str] | None


class FieldValue(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Holds one value for one column, its source, and how sure we are (0 to 1)."""

    value: FieldText
    source: Source
    confidence: float = 1.0


class NeedsPerson(Record, frozen=True, kw_only=True):
    """Names a column that a person must check, and why, in a German sentence (the readers are Swiss)."""

    column: str
    """The column's display name."""
    reason: str
    code: str = ""
    """The reason as one fixed English word, for programs; the sentence may change. Empty: not classified."""


class Analysis(Record, frozen=True, kw_only=True):
    """Records how the fields were found."""

    model: str
    prompt_version: str
    cached: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0


class StoredItem(Record, frozen=True, kw_only=True):
    """Describes the SharePoint item after the upload."""

    item_id: str
    name: str
    web_url: str
    etag: str
    outcome: Literal["created", "replaced", "unchanged"]
    quick_xor_hash: str | None = None
    """Base64, as Graph returns it; None while SharePoint has not computed it."""


class FieldVerdict(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Compares what was sent for a column with what is stored."""

    sent: FieldText
    stored: FieldText
    same: bool


class Step(Record, frozen=True, kw_only=True):
    """Records one agent's part of a photo's way."""

    agent: str
    started: float
    """Unix time in seconds."""
    seconds: float
    attempts: int = 1
    deliveries: int = 1


class PhotoSubmitted(Record, frozen=True, kw_only=True):
    """Submits a photo to be described and filed. Only `source_url` is required."""

    source_url: str
    """http(s):, file:, store: or sharepoint: address of the bytes."""
    photo_id: PhotoId | None = None
    session_id: SessionId | None = None
    file_name: str | None = None
    target: Target | None = None
    expected: Annotated[int, msgspec.Meta(ge=0, le=MAX_EXPECTED)] | None = None
    """How many photos the session has; the first value counts. 0 counts as missing."""
    hints: Hints | None = None


class OnItsWay(Record, frozen=True, kw_only=True):
    """Holds what every event after the first carries of the submission."""

    photo_id: PhotoId
    session_id: SessionId | None = None
    source_url: str
    file_name: str | None = None
    hints: Hints = Hints()


class SchemaExtracted(OnItsWay, frozen=True, kw_only=True):
    """The target library is known, and its columns as they were read."""

    library: LibraryRef
    schema_digest: SchemaDigest
    schema_ref: StoreUrl


class PhotoFetched(SchemaExtracted, frozen=True, kw_only=True):
    """The original bytes are in the store."""

    dataref: StoreUrl
    sha256: Sha256
    size: int
    """Bytes."""
    media_type: str
    width: int
    """Pixels as stored, before the orientation is applied."""
    height: int
    orientation: int = 1
    """EXIF orientation, 1 to 8."""
    exif: ExifFacts = ExifFacts()


class PhotoAnalyzed(PhotoFetched, frozen=True, kw_only=True):
    """The library's columns, filled as far as the photo and its sender tell.

    An optional column without any information is in neither list: it stays empty.
    """

    fields: dict[str, FieldValue]
    """By the column's internal name."""
    needs_person: list[NeedsPerson] = []
    analysis: Analysis
    preview_ref: StoreUrl


class PhotoUploaded(PhotoAnalyzed, frozen=True, kw_only=True):
    """Photo and fields are in the library."""

    item: StoredItem


class PhotoValidated(PhotoUploaded, frozen=True, kw_only=True):
    """The item was read back and agrees with what was sent. Public: other systems listen here."""

    verdicts: dict[str, FieldVerdict]
    verdict: Literal["ok", "needs_person"]
    report_ref: StoreUrl
    steps: list[Step] = []


class PhotoFailed(Record, frozen=True, kw_only=True):
    """A photo became a dead letter. Public: other systems listen here.

    The settle that writes the dead letter writes it, too. A replay that ends well brings `photo.validated`
    later; a replay that fails brings another `photo.failed`.
    """

    photo_id: PhotoId
    session_id: SessionId | None = None
    file_name: str | None = None
    """The photo's file name, else the last part of its address."""
    agent: str
    """The agent that could not process it."""
    reason: str
    """``permanent``, ``exhausted``, ``delivery_limit`` or ``undecodable``."""
    cause: str = ""
    """A code for what is to blame: file, source, library, vision, filing or readback; empty if unknown."""
    message: str
    """What went wrong and what to do, one sentence."""
    fingerprint: str
    """Equal for failures of the same kind."""
    replays: int = 0
    """How often the photo had been replayed."""
    failed_at: float
    """Unix time in seconds."""


class SessionCompleted(Record, frozen=True, kw_only=True):
    """Every expected photo of a session is validated or dead. Written by the settle that ended the last."""

    session_id: SessionId
    completion: int
    """1 the first time; a replayed dead letter can complete the session again."""
    expected: int
    counters: dict[str, int]
    """``received``, one per agent, ``validated``, ``dead``, ``postponed``."""
    created_at: float
    """Unix time in seconds, the server's clock, as is `completed_at`."""
    completed_at: float


class PhotoInShort(Record, frozen=True, kw_only=True):
    """A photo on one of a session report's lists."""

    photo_id: PhotoId | None = None
    file_name: str | None = None
    reason: str


class SessionReported(Record, frozen=True, kw_only=True):
    """The session's report is written. Public: other systems listen here."""

    session_id: SessionId
    completion: int
    report_ref: StoreUrl
    validated: int
    dead: int
    needs_person: list[PhotoInShort] = []
    dead_photos: list[PhotoInShort] = []


class WebhookQueued(Record, frozen=True, kw_only=True):
    """A notice about an end waits for its delivery to one web hook. Between agents and the notifier only."""

    endpoint: str
    """The id of the web hook, as `erni webhook list` shows it."""
    body: str
    """What is posted, to the byte: a JSON document with `type`, `timestamp` and `data`."""


Event: TypeAlias = (
    PhotoSubmitted
    | SchemaExtracted
    | PhotoFetched
    | PhotoAnalyzed
    | PhotoUploaded
    | PhotoValidated
    | PhotoFailed
    | SessionCompleted
    | SessionReported
    | WebhookQueued
)

"""Builds and reads dead letters: what an entry that failed for good leaves for the operator."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import msgspec

from events.identities import PhotoId, SessionId
from events.types import PhotoFailed
from shared.retry.attempt import Attempt
from shared.telemetry.redact import scrub

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Reason: TypeAlias = Literal["exhausted", "permanent", "undecodable", "delivery_limit"]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
_KNOWN_REASONS: Final[Mapping[str | None, Reason]] = {reason: reason for reason in REASONS}
LONGEST_MESSAGE: Final = 1024
"""Characters kept of a message."""
LONGEST_ANSWER: Final = 300
"""Characters kept of what a model answered."""
KEPT_OF_A_FIELD: Final = 1024
"""Bytes kept of each field of an entry that is too large: a copy of it could fill the server."""
_KEPT_FIELDS: Final = 100
VERSION: Final = version("erni-foto-agency")

_DETAILS = re.compile(
    r"\[request-id[^\]]*\]"  # ends the sentences of the SharePoint client
    r"|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|(?<![0-9a-z])[0-9a-f]{8,}(?![0-9a-z])|0x[0-9a-f]+|\d[\d,.]*",
    re.IGNORECASE,
)
# an apostrophe between two letters (can't, Müller's) neither opens nor closes a quotation
_QUOTED = re.compile(
    r"(?<!\w)'(?:[^']|(?<=\w)'(?=\w))*'(?!\w)|\"[^\"]*\"|«[^»]*»|„[^“”]*[“”]|“[^”]*”|`[^`]*`"
)
_PATH = re.compile(r"(\bhttps?://[^/\s'\"»]+)/[^\s'\"»]*")
_NAME_SHOWN: Final = 40
"""Characters after which a sentence may cut a photo's name."""
_ATTEMPTS = msgspec.json.Decoder(list[Attempt])


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one dead letter as operators see it; the original fields lie beside it, byte for byte."""

    id: str
    """Entry id in the dead-letter stream."""
    lane: int | None = None
    agent: str
    stream: str
    """The event type of the stream it failed on."""
    entry_id: str
    consumer: str
    reason: Reason
    error_type: str
    message: str
    fingerprint: str
    """Equal for alike failures: 12 hex digits over agent, reason, type and the message less its details."""
    attempts: list[Attempt] = []
    deliveries: int
    first_failed_at: float
    """Unix time in seconds, as is `failed_at`."""
    failed_at: float
    photo_id: str | None = None
    session_id: str | None = None
    file_name: str | None = None
    traceparent: str = ""
    """Of the span of the delivery that failed."""
    version: str = ""
    replays: int = 0
    answer: str = ""
    """The beginning of what a model answered, where that was the cause."""
    cut: int = 0
    """Bytes of an entry over the size limit, of which only the beginning of each field is kept; else 0."""
    cause: str = ""
    """The code of what was to blame (`shared.retry.errors.because`); '' if nothing was named."""
    discarded_by: str = ""
    """Who moved it into the archive; '' while it is not there."""
    dead_id: str = ""
    """The id that it had before it was moved there."""
    edited_as: str = ""
    """The entry id of the edited event that took its place; '' if it was only discarded."""


def fingerprint(
    agent: str, reason: str, error_type: str, message: str, *, file_name: str | None = None
) -> str:
    """Return the identity of a kind of failure, without ids, numbers, quoted details and the photo's name."""
    if file_name:
        message = _without_name(message, file_name)
    plain = _DETAILS.sub("#", _QUOTED.sub("'…'", _PATH.sub(r"\1/…", message)))[:LONGEST_MESSAGE]
    text = f"{agent}\n{reason}\n{error_type}\n{plain}"
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def _without_name(message: str, file_name: str) -> str:
    """Return a sentence without the photo's name, which it may have cut, and of which it left out some.

    Only what can be printed of a name stands in a sentence (`shared.photos.facts.called`).
    """
    name = "".join(letter for letter in file_name if letter.isprintable())
    if len(name) <= _NAME_SHOWN:
        return re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", message)
    before, found, after = message.partition(name[:_NAME_SHOWN])
    if not found:
        return message
    rest = zip(name[_NAME_SHOWN:], after, strict=False)
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], rest))
    return f"{before}…{_without_name(after[same:], file_name)}"


def letter_fields(
    *,
    agent: str,
    stream: str,
    entry_id: str,
    consumer: str,
    reason: Reason,
    error_type: str,
    message: str,
    attempts: Sequence[Attempt] = (),
    deliveries: int,
    photo_id: str | None,
    session_id: str | None,
    file_name: str | None,
    traceparent: str,
    replays: int,
    answer: str = "",
    cause: str = "",
    cut: int = 0,
) -> list[str | bytes]:
    """Return the fields of a dead letter beside `raw`, which the settle script adds."""
    now = time.time()
    # a foreign exception's text has no limit, and the patterns below take long for a long one
    whole = scrub(message[: 16 * LONGEST_MESSAGE])[: 8 * LONGEST_MESSAGE]
    said = whole[:LONGEST_MESSAGE]
    first = attempts[0].at if attempts else now
    fields: list[str | bytes] = [
        "agent", agent,
        "stream", stream,
        "entry", entry_id,
        "consumer", consumer,
        "reason", reason,
        "error_type", error_type,
        "message", said.encode("utf-8", "replace"),
        "fingerprint", fingerprint(agent, reason, error_type, whole, file_name=file_name),
        "attempts", msgspec.json.encode([_scrubbed(attempt) for attempt in attempts]),
        "deliveries", str(deliveries),
        "first_failed_at", f"{first:.3f}",
        "failed_at", f"{now:.3f}",
        "traceparent", traceparent,
        "version", VERSION,
        "replays", str(replays),
    ]  # fmt: skip
    if answer:
        fields += ("answer", scrub(answer)[:LONGEST_ANSWER].encode("utf-8", "replace"))
    if cause:
        fields += ("cause", cause)
    if cut:
        fields += ("cut", str(cut))
    # Ids stay as they are: people look dead letters up by them, and their alphabet cannot spell an address.
    for name, value in (("photo", photo_id), ("session", session_id)):
        if value:
            fields += (name, value[:256])
    if file_name:
        fields += ("file_name", scrub(file_name)[:256])
    return fields


def failed_event(letter: Sequence[str | bytes]) -> PhotoFailed:
    """Return what the public learns of a dead letter that names a photo. `letter`: its fields."""
    found = {
        str(name): value if isinstance(value, str) else value.decode()
        for name, value in zip(letter[::2], letter[1::2], strict=True)
    }
    session = found.get("session")
    return PhotoFailed(
        photo_id=PhotoId(found["photo"]),
        session_id=SessionId(session) if session else None,
        file_name=found.get("file_name"),
        agent=found["agent"],
        reason=found["reason"],
        cause=found.get("cause", ""),
        message=found["message"],
        fingerprint=found["fingerprint"],
        replays=int(found["replays"]),
        failed_at=float(found["failed_at"]),
    )


def beginnings(fields: Sequence[bytes]) -> list[bytes]:
    """Return the beginning of each field, and of a hundred fields at most, of an entry that is too large."""
    return [part[:KEPT_OF_A_FIELD] for part in fields[: 2 * _KEPT_FIELDS]]


def _scrubbed(attempt: Attempt) -> Attempt:
    return msgspec.structs.replace(attempt, message=scrub(attempt.message))


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Hold the fields of a dead letter as they stand in its entry; None: it is not there."""

    id: str
    stream: str | None = None
    entry: str | None = None
    consumer: str | None = None
    reason: str | None = None
    error_type: str | None = None
    message: str | None = None
    fingerprint: str | None = None
    attempts: str | None = None
    deliveries: str | None = None
    first_failed_at: str | None = None
    failed_at: str | None = None
    photo: str | None = None
    session: str | None = None
    file_name: str | None = None
    traceparent: str | None = None
    version: str | None = None
    replays: str | None = None
    answer: str | None = None
    cause: str | None = None
    cut: str | None = None
    discarded_by: str | None = None
    dead_id: str | None = None
    edited_as: str | None = None


FIELDS: Final = Row.__struct_fields__[1:]
"""The fields of the entry, `raw` apart, which holds the original."""


def read_letter(dead_id: bytes, flat: Sequence[bytes], *, agent: str, lane: int | None) -> DeadLetter:
    """Read a dead letter from its entry; what others wrote there is read as far as possible."""
    fields = dict(zip(flat[::2], flat[1::2], strict=False))
    values = [fields.get(name.encode()) for name in FIELDS]
    return letter_of(row_of([dead_id, *values]), agent=agent, lane=lane)


def row_of(values: Sequence[bytes | None]) -> Row:
    """Return the row of an id and the values of `FIELDS`, whatever bytes are in them."""
    dead_id, *rest = (value if value is None else value.decode("utf-8", "replace") for value in values)
    return Row(dead_id or "", *rest)


def letter_of(row: Row, *, agent: str, lane: int | None) -> DeadLetter:
    """Return the dead letter of a row, with what counts where a field is missing or nonsense."""
    return DeadLetter(
        id=row.id,
        lane=lane,
        agent=agent,
        stream=row.stream or "",
        entry_id=row.entry or "",
        consumer=row.consumer or "",
        reason=_KNOWN_REASONS.get(row.reason, "undecodable"),
        error_type="unknown" if row.error_type is None else row.error_type,
        message="this entry was not written by an agent" if row.message is None else row.message,
        fingerprint=row.fingerprint or "",
        attempts=[] if row.attempts in (None, "[]") else _attempts(row.attempts or ""),
        deliveries=_SMALL[row.deliveries] if row.deliveries in _SMALL else _number(row.deliveries),
        first_failed_at=_seconds(row.first_failed_at, row.id),
        failed_at=_seconds(row.failed_at, row.id),
        photo_id=row.photo,
        session_id=row.session,
        file_name=row.file_name,
        traceparent=row.traceparent or "",
        version=row.version or "",
        replays=_SMALL[row.replays] if row.replays in _SMALL else _number(row.replays),
        answer=row.answer or "",
        cause=row.cause or "",
        cut=_SMALL[row.cut] if row.cut in _SMALL else _number(row.cut),
        discarded_by=row.discarded_by or "",
        dead_id=row.dead_id or "",
        edited_as=row.edited_as or "",
    )


def _attempts(text: str) -> list[Attempt]:
    try:
        return _ATTEMPTS.decode(text)
    except msgspec.MsgspecError:
        return []


_SMALL: Final[Mapping[str | None, int]] = {None: 0} | {str(number): number for number in range(100)}
"""Numbers as nearly all dead letters have them: a list of 100,000 reads three for each."""


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else 0


def _seconds(text: str | None, dead_id: str) -> float:
    """Return a time; where it is missing or nonsense, the one in the id, which is in milliseconds."""
    try:
        if text:
            return float(text)
    except ValueError:
        pass
    return int(dead_id.partition("-")[0]) / 1000

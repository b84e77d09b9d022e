"""A stream entry on the wire: a CloudEvents 1.0 event in binary form, its attributes as fields.

``id source type specversion time subject datacontenttype sessionid traceparent tracestate data``.
Only ``data`` is required of an upstream. Attributes we do not know are carried along unchanged; names that
begin with ``erni`` are ours: ``ernionce`` (the fingerprint that the publisher's marker holds), ``ernisteps``
(the agents so far), ``ernisource`` (the source that submitted the photo), ``ernidelayed`` and ``ernireplay``
(written by the delivery engine when an entry comes back).
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from . import attributes, identities, topology
from .identities import PhotoId, SessionId
from .limits import MAX_SOURCE
from .types import Event, PhotoSubmitted, Step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .identities import EventId

SPEC_VERSION: Final = attributes.SPEC_VERSION
MAX_FIELDS: Final = 64
"""Fields of one entry, ours included. Lua's unpack fails at about 8,000 values; 64 are plenty."""
MAX_ENTRY_BYTES: Final = 1_048_576
"""The limit when an entry is decoded: a publisher may send 256 KiB, and five agents add to that."""
MAX_CONTEXT_CHARS: Final = 16_447
"""The longest tracestate of W3C Trace Context: 32 members of 513 characters. Longer is dropped."""

ATTRIBUTES: Final = frozenset(
    b"id source type specversion time subject datacontenttype dataschema sessionid dataref erniphotoref"
    b" traceparent tracestate data ernionce ernisource ernisteps ernidelayed ernireplay".split()
)
_NAMES: Final = {name: name.encode() for name in topology.TYPES}
_DELAYED: Final = re.compile(rb"[0-9]{1,15}:[0-9]{1,9}:[0-9]{1,9}")
_REPLAY: Final = re.compile(rb"[0-9]{1,9} [\x21-\x7e]{0,128}")
_DECODERS: Final = {name: msgspec.json.Decoder(struct) for name, struct in topology.TYPES.items()}
_ENCODER: Final = msgspec.json.Encoder()
_STEPS: Final = msgspec.json.Decoder(tuple[Step, ...])


class UndecodableError(ValueError):
    """Raised for an entry that is no event of its stream; the message says why."""

    def __init__(self, message: str, session_id: SessionId | None = None) -> None:
        super().__init__(message)
        self.session_id = session_id


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Holds a decoded entry: the event, and what travels beside it."""

    event: Event
    type: str
    event_id: str
    photo_id: PhotoId | None
    session_id: SessionId | None
    traceparent: str = ""
    tracestate: str = ""
    steps: bytes = b""
    """JSON list of Step, as it came."""
    delayed: bytes = b""
    replay: bytes = b""
    origin: bytes = b""
    """The source that submitted the photo, or the session's first one, as it came; empty if unknown."""
    extras: tuple[bytes, ...] = ()
    """Unknown fields, name and value in turn."""
    marked: bool = False
    """The event's marker was written before: when it was published, or at its first delivery."""
    canonical: bool = False
    """`encode` wrote the data, so that it has no field that the event's type does not know."""


def decode(stream: str, entry_id: str, fields: Sequence[bytes]) -> Envelope:
    """Decode an entry of the stream of event type `stream`. Raises UndecodableError.

    `fields` is Redis' flat list: name, value, name, value.
    """
    pairs = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        return _decode(stream, entry_id, fields, pairs)
    except UndecodableError as error:
        raise UndecodableError(str(error), session_of(pairs)) from error
    except (UnicodeDecodeError, msgspec.MsgspecError, identities.InvalidIdError, RecursionError) as error:
        why = attributes.structured_hint(pairs) or reason(error)
        raise UndecodableError(f"this entry is no {stream} event: {why}", session_of(pairs)) from error


def reason(error: Exception) -> str:
    """Return why something is no event, in at most 400 characters: a decoder may quote a megabyte."""
    text = "not UTF-8" if isinstance(error, UnicodeError) else str(error) or "nested too deep"
    # the fault is named at the beginning, its place at the end
    return text if len(text) <= 400 else f"{text[:200]}…{text[-200:]}"


def session_of(pairs: Mapping[bytes, bytes]) -> SessionId | None:
    """Return the session that an entry names, if that is readable: undecodable entries are counted there."""
    try:
        return identities.session_id(pairs[b"sessionid"].decode())
    except (KeyError, ValueError):
        return None


def replay_of(pairs: Mapping[bytes, bytes]) -> bytes:
    """Return the field that a replay adds, ``<times> <traceparent>``; also of an entry that is no event."""
    return _ours(_REPLAY, pairs.get(b"ernireplay", b""))


def _decode(stream: str, entry_id: str, fields: Sequence[bytes], pairs: dict[bytes, bytes]) -> Envelope:
    if len(pairs) * 2 != len(fields):
        raise UndecodableError("this entry names a field twice: which one counts?")
    if len(pairs) > MAX_FIELDS:
        raise UndecodableError(f"this entry has {len(pairs)} fields; {MAX_FIELDS} are allowed")
    size = sum(map(len, fields))
    if size > MAX_ENTRY_BYTES:
        raise UndecodableError(f"this entry has {size} bytes; {MAX_ENTRY_BYTES} are allowed")
    get = pairs.get
    data = get(b"data")
    if data is None:
        hint = attributes.structured_hint(pairs)
        raise UndecodableError(hint or "this entry has no field `data`, which holds the event as JSON")
    kind = get(b"type")
    if kind is not None and kind != _NAMES[stream]:
        raise UndecodableError(f"type {kind.decode()[:80]!r} does not belong into the stream of {stream}")
    if stream == topology.INTAKE and (wrong := attributes.submission_error(pairs)):
        raise UndecodableError(wrong)
    event, photo_id, session_id = _identities(stream, _DECODERS[stream].decode(data), pairs)
    extras: tuple[bytes, ...] = ()
    if not ATTRIBUTES.issuperset(pairs):
        extras = attributes.carried(pairs, ATTRIBUTES)
    event_id, context = get(b"id"), get(b"traceparent")
    # the rare ones: an entry that comes back has them
    delayed, replay = get(b"ernidelayed", b""), get(b"ernireplay", b"")
    return Envelope(
        event=event,
        type=stream,
        event_id=event_id.decode() if event_id else entry_id,
        photo_id=photo_id,
        session_id=session_id,
        traceparent=_context(context) if context else "",
        tracestate=_context(get(b"tracestate")) if context else "",
        steps=get(b"ernisteps", b""),
        delayed=_ours(_DELAYED, delayed) if delayed else b"",
        replay=_ours(_REPLAY, replay) if replay else b"",
        extras=extras,
        origin=get(b"ernisource", b"") if stream != topology.INTAKE else _origin(get(b"source", b"")),
        # an entry that comes back (postponed, replayed) was marked at its first delivery
        canonical=get(b"ernionce", b"").startswith(b"sha256:"),
        marked=b"ernionce" in pairs or b"ernidelayed" in pairs or b"ernireplay" in pairs,
    )


def _identities(
    stream: str, event: Event, pairs: Mapping[bytes, bytes]
) -> tuple[Event, PhotoId | None, SessionId | None]:
    """Read whose event it is from the data, else from the attributes; a new photo gets its own id."""
    subject, session = pairs.get(b"subject"), pairs.get(b"sessionid")
    claimed: str | None = getattr(event, "session_id", None) or (session.decode() if session else None)
    session_id = None if claimed is None else identities.session_id(claimed)
    named: str | None = getattr(event, "photo_id", None)
    if named is not None:
        photo_id = identities.photo_id(named)
    elif stream != topology.INTAKE or not isinstance(event, PhotoSubmitted):
        return event, None, session_id
    elif subject:
        photo_id = identities.photo_id(subject.decode())
    else:
        photo_id = identities.derived_photo_id(session_id, event.source_url)
    if isinstance(event, PhotoSubmitted) and (event.photo_id != photo_id or event.session_id != session_id):
        event = msgspec.structs.replace(event, photo_id=photo_id, session_id=session_id)
    return event, photo_id, session_id


def _ours(form: re.Pattern[bytes], value: bytes) -> bytes:
    """Return a field of the delivery engine; empty if its form is wrong, because we calculate with it."""
    return value if value and form.fullmatch(value) else b""


def _origin(source: bytes) -> bytes:
    """Return the source of a submission, if it can travel on as an attribute of its own."""
    return source if len(source) <= MAX_SOURCE and source.isascii() else b""


def _context(value: bytes | None) -> str:
    """Return a trace context field as text. What is not ASCII is no trace context, but costs no photo."""
    return value.decode("ascii", "replace") if value else ""


def encode(
    event: Event,
    *,
    event_id: EventId | str,
    source: str,
    photo_id: str | None = None,
    session_id: str | None = None,
    traceparent: str = "",
    tracestate: str = "",
    steps: bytes = b"",
    origin: bytes = b"",
    extras: Sequence[str | bytes] = (),
    made_at: str = "",
) -> list[str | bytes]:
    """Return the flat field list of an event, ready for XADD; `data` is its last field.

    `made_at`: the event's `time` as its producer wrote it; by default now.
    """
    fields: list[str | bytes] = [
        "id", event_id,
        "source", source,
        "type", topology.NAMES[type(event)],
        "specversion", SPEC_VERSION,
        "time", made_at or _now(),
        "datacontenttype", "application/json",
    ]  # fmt: skip
    if photo_id:
        fields += ("subject", photo_id)
    if session_id:
        fields += ("sessionid", session_id)
    dataref = getattr(event, "dataref", None)
    if dataref:
        # `dataref` is for one release more: CloudEvents registered that name for the place of `data` itself
        fields += ("dataref", dataref, "erniphotoref", dataref)
    if traceparent:
        fields += ("traceparent", traceparent)
        if tracestate and len(tracestate) <= MAX_CONTEXT_CHARS:
            fields += ("tracestate", tracestate)
    if steps:
        fields += ("ernisteps", steps)
    if origin:
        fields += ("ernisource", origin)
    fields += extras
    fields += ("data", _ENCODER.encode(event))
    return fields


class _Clock:
    """Keeps the last time that was written and its text: many hand-offs share one millisecond."""

    millis = 0
    text = ""


def _now() -> str:
    millis = time.time_ns() // 1_000_000
    if millis != _Clock.millis:
        _Clock.text = datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds")
        _Clock.millis = millis
    return _Clock.text


def read_steps(steps: bytes) -> tuple[Step, ...]:
    """Return the steps of an envelope. Unreadable steps count as none: no decision depends on them."""
    try:
        return _STEPS.decode(steps) if steps else ()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ()


def with_step(steps: bytes, step: Step) -> bytes:
    """Append one step without decoding those that are there."""
    added = _ENCODER.encode(step)
    if steps[:1] == b"[" and steps[-1:] == b"]" and len(steps) > 2:
        return b"%b,%b]" % (steps[:-1], added)
    return b"[%b]" % added

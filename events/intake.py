"""Keeps one event one event: its marker by source and id, for every way into the pipeline.

CloudEvents identifies an event by `source` and `id` together. The marker holds a fingerprint of the content,
so that the same identity with other content is an error and not a photo that disappears.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import quote

import msgspec

from . import scripts, topology
from .keys import lane_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from .codec import Envelope
    from .keys import Keys

WINDOW_SECONDS: Final = 24 * 3600
"""How long an event is remembered: within this time the same source and id are the same event."""
FIRST_SECONDS: Final = 7 * 24 * 3600
"""How long the first event of a session is noted: as long as a session may be in flight."""
ONCE: Final = "ernionce"
"""The field with the fingerprint. An entry that has it was marked when it was published."""

COMMAND_SOURCE: Final = "erni:publish"
"""The source of the photos that `erni publish` publishes."""

Admission: TypeAlias = Literal["first", "moved", "twice", "reused"]
"""What becomes of an entry: it is handled, it was moved to its own lane, it is dropped because another entry
carries the same event, or it is refused because its identity belongs to other content."""

PUBLISH: Final = scripts.load(scripts.HERE, "publish")
PUBLISH_ALL: Final = scripts.load(scripts.HERE, "publish_all")
_CLAIM: Final = scripts.load(scripts.HERE, "claim")
_NO_LIMIT: Final = 2**53
_ADMISSIONS: Final[dict[bytes, Admission]] = {b"FIRST": "first", b"TWICE": "twice", b"REUSED": "reused"}


def marker(lane: Keys, source: str, event_id: str) -> str:
    """Return the key of an event's marker: ``published:<source, percent-encoded>:<id>``.

    The source keeps only the unreserved characters of RFC 3986, so that its end is certain and an ACL rule
    can name the keys of one source.
    """
    return lane.published(f"{quote(source, safe='')}:{event_id}")


def counter(lane: Keys, source: str, session_id: str) -> str:
    """Return the key that counts what a source published into a session: ``sent:<source>:<session>``."""
    return lane.sent(quote(source, safe=""), session_id)


def fingerprint(data: bytes) -> str:
    """Return the fingerprint of an event's data, as `events.codec.encode` writes it.

    That text is canonical: the fields in the order of their type, defaults left out, ids filled in.
    """
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def take_in(
    redis: Redis,
    lane: Keys,
    lanes: int,
    entry_id: str,
    fields: Sequence[bytes],
    envelope: Envelope,
    *,
    bulk: bool = False,
) -> Admission:
    """Decide what becomes of an entry of the first stream of `lane`. Raises RedisError.

    `bulk`: it came from the stream with bulk work.
    Only an entry without marker costs a request: one that was written by hand or by an older publisher.
    """
    if lanes > 1:
        own = lane_of(envelope.session_id or envelope.photo_id or "", lanes)
        if own.lane != lane.lane:
            return await _move(redis, lane, own, entry_id, fields, envelope, bulk=bulk)
    if envelope.marked:
        return "first"
    pairs = dict(zip(fields[::2], fields[1::2], strict=True))
    if not pairs.get(b"source") or not pairs.get(b"id"):
        return "first"
    source, session = source_of(fields), envelope.session_id
    of_session = (lane.session_first(session), lane.session_source(session)) if session else ()
    reply = await _CLAIM(
        redis,
        [marker(lane, source, envelope.event_id), *of_session],
        [
            entry_id,
            *_fingerprints(pairs, envelope),
            WINDOW_SECONDS * 1000,
            source,
            FIRST_SECONDS * 1000,
        ],
    )
    return _ADMISSIONS[reply]


async def _move(
    redis: Redis,
    lane: Keys,
    own: Keys,
    entry_id: str,
    fields: Sequence[bytes],
    envelope: Envelope,
    *,
    bulk: bool,
) -> Admission:
    """Publish an entry into its own lane, because a session has one lane. Repeated calls move it once."""
    pairs = dict(zip(fields[::2], fields[1::2], strict=True))
    event_id = envelope.event_id
    if event_id == entry_id:
        # without an id of its own: an entry id is unique in its stream only
        event_id = f"{lane.lane}:{'bulk:' if bulk else ''}{entry_id}"
    moved: list[str | bytes] = list(fields)
    if ONCE.encode() not in pairs:
        moved += (ONCE, _fingerprints(pairs, envelope)[0])
    outcome, _, _ = await PUBLISH(
        redis,
        [
            own.stream(topology.INTAKE),
            marker(own, source_of(fields), event_id),
            own.refused,
            *([own.stream(topology.bulk_of(topology.INTAKE))] if bulk else ()),
        ],
        [WINDOW_SECONDS * 1000, _NO_LIMIT, *moved],
    )
    return "reused" if outcome == b"REUSED" else "moved"


def source_of(fields: Sequence[bytes]) -> str:
    """Return the source of an entry, '' if it names none."""
    pairs = dict(zip(fields[::2], fields[1::2], strict=True))
    return pairs.get(b"source", b"").decode("utf-8", "replace")


def reused(source: str, event_id: str) -> str:
    """Say that an identity has been used for another content, and what to do."""
    return (
        f"the event id {event_id[:80]!r} of source {source[:80]!r} was published before with other content,"
        " and CloudEvents identifies an event by source and id: give another photo another id, and repeat an"
        " event unchanged"
    )


def _fingerprints(pairs: dict[bytes, bytes], envelope: Envelope) -> tuple[str, str]:
    """Return the fingerprint of the content, and the one that the publish script makes of the bytes."""
    plain = hashlib.sha1(pairs[b"data"], usedforsecurity=False).hexdigest()
    return fingerprint(msgspec.json.encode(envelope.event)), f"sha1:{plain}"

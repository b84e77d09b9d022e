"""Notes who published a photo and a session over HTTP, so that a publisher can follow its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec

from events import keys, scripts
from events.connection import call
from events.publisher import SESSION_TTL_IN_FLIGHT
from shared.delivery.photo_record import Submitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from events.publisher import Prepared, Published

_SUBMITTED: Final = scripts.load("shared.operations", "submitted")
_NOTE: Final = msgspec.json.Decoder(Submitted)


async def note(
    redis: Redis, source: str, events: Sequence[tuple[Prepared, str, Published]], *, record_hours: float
) -> list[Submitted]:
    """Note that events were published; return the notes that count.

    Each event comes with the photo's file name or '', and what became of it: of a repetition we do not know
    the trace. A photo keeps the note of its first event. A photo or session that was there before its event,
    without a note, came in another way: it gets none. Raises what redis-py raises.
    """
    found: dict[int, Submitted] = {}
    by_lane: dict[int | None, list[int]] = {}
    for number, (event, _, _) in enumerate(events):
        by_lane.setdefault(event.lane, []).append(number)
    for lane_number, numbers in by_lane.items():
        lane = keys.Keys(lane_number)
        names: list[str] = []
        words: list[str | bytes | int | float] = [
            int(record_hours * 3_600_000),
            SESSION_TTL_IN_FLIGHT * 1000,
            source,
        ]
        for number in numbers:
            event, file_name, published = events[number]
            record, session = lane.photo(event.photo_id), event.session_id
            names += (
                (
                    record,
                    lane.session_source(session),
                    lane.session_first(session),
                    lane.session(session),
                    lane.session_photos(session),
                )
                if session
                else (record,) * 5
            )
            mine = Submitted(
                source=source,
                event_id=event.event_id,
                at=time.time(),
                traceparent=event.traceparent if published.fresh else "",
            )
            words += (
                *(msgspec.json.encode(mine), session or "", file_name[:255]),
                mine.traceparent[3:35],
                int(published.entry_id.partition("-")[0]),
            )
        notes = await _SUBMITTED(redis, names, words)
        found |= zip(numbers, map(_NOTE.decode, notes), strict=True)
    return [found[number] for number in range(len(events))]


async def source_of_session(redis: Redis, session_id: str, *, lanes: int) -> str | None:
    """Return the source that published the session's first photo over HTTP; None if none is known."""
    lane = keys.lane_of(session_id, lanes)
    found = await call(redis, "GET", lane.session_source(session_id))
    return found.decode("utf-8", "replace") if found else None


async def of_photo(redis: Redis, lane: keys.Keys, photo_id: str) -> Submitted | None:
    """Return who published a photo over HTTP, as its record says it; None if none does."""
    note = await call(redis, "HGET", lane.photo(photo_id), "submitted")
    try:
        return _NOTE.decode(note) if note else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


async def sources(
    redis: Redis, lane: keys.Keys, ids: Sequence[tuple[str | None, str | None]]
) -> list[str | None]:
    """Return who published photos over HTTP, by their photo and session ids; None where no record says it.

    Without a photo id it is who began the session, over HTTP or not. Raises what redis-py raises.
    """
    if not ids:
        return []
    async with redis.pipeline(transaction=False) as pipe:
        for photo_id, session_id in ids:
            if photo_id:
                pipe.execute_command("HGET", lane.photo(photo_id), "submitted")
            else:
                session = session_id or ""
                pipe.execute_command("MGET", lane.session_source(session), lane.session_first(session))
        values = await pipe.execute(raise_on_error=False)
    return [
        _of_note(value) if photo_id else _of_session(value)
        for (photo_id, _), value in zip(ids, values, strict=True)
    ]


def _of_note(note: object) -> str | None:
    try:
        return _NOTE.decode(note).source if isinstance(note, bytes) else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _of_session(values: object) -> str | None:
    """Return the source of an owner, else of a first event."""
    if not isinstance(values, list):
        return None
    owner, first = (value.decode("utf-8", "replace") if value else "" for value in values)
    return owner or first.partition(" ")[2] or None

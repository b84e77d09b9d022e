"""Replays a dead letter with corrected data: a new event with its origin noted, in the same trace."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from events import codec, keys, topology
from events.connection import call
from shared.operations import activity
from shared.operations.dead_letters import Replayed, stream_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.delivery.dead_letter import DeadLetter
    from shared.operations.activity import Person
    from shared.operations.dead_letters import DeadLetters

ORIGIN: Final = "editedfrom"
"""Attribute of an edited event: the agent and id of the dead letter, as ``photo_fetcher/1764012345678-0``."""
_DROPPED: Final = frozenset({b"id", b"data", b"ernireplay", b"ernidelayed", b"ernionce", ORIGIN.encode()})


class InvalidEditError(ValueError):
    """Raised for data that cannot be replayed; the message says what to change."""


def data_of(fields: list[bytes]) -> str:
    """Return the data of an original entry as indented JSON, as text to edit; as it is if it is no JSON."""
    raw = dict(zip(fields[::2], fields[1::2], strict=False)).get(b"data", b"")
    try:
        return msgspec.json.format(msgspec.json.encode(msgspec.json.decode(raw)), indent=2).decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return raw.decode("utf-8", "replace")


def origin_of(fields: list[bytes]) -> str:
    """Return the dead letter that an edited event comes from, as ``agent/id``; '' for any other event."""
    raw = dict(zip(fields[::2], fields[1::2], strict=False)).get(ORIGIN.encode(), b"")
    return raw.decode("utf-8", "replace")


async def successor_of(redis: Redis, letter: DeadLetter) -> str:
    """Return the entry id of the event that took the place of an archived dead letter; '' if none did."""
    stream = keys.Keys(letter.lane).archive(letter.agent)
    for _, flat in await call(redis, "XRANGE", stream, letter.id, letter.id):
        fields: dict[bytes, bytes] = dict(zip(flat[::2], flat[1::2], strict=False))
        return fields.get(b"edited_as", b"").decode("utf-8", "replace")
    return ""


async def replay_edited(
    redis: Redis, letters: DeadLetters, letter: DeadLetter, data: str, who: Person
) -> Replayed:
    """Publish the edited event where the original failed; the dead letter moves into the archive.

    Raises InvalidEditError, and what redis-py raises when Redis is away.
    """
    fields = await letters.original(letter)
    if not fields:
        return Replayed(letter=letter, outcome="gone")
    edited = _edited(letter, fields, data)
    result = await letters.replay(letter, edited=edited, who=who.name)
    if result.outcome == "replayed":
        await activity.note(redis, who, "edit", f"{letter.agent}/{letter.id}")
    return result


def _edited(letter: DeadLetter, fields: list[bytes], data: str) -> list[bytes]:
    try:
        document = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise InvalidEditError(f"this is no JSON: {error}") from None
    kept = [
        part
        for name, value in zip(fields[::2], fields[1::2], strict=False)
        if name not in _DROPPED
        for part in (name, value)
    ]
    event_id = f"edit:{secrets.token_hex(12)}"
    edited = [
        b"id",
        event_id.encode(),
        *kept,
        ORIGIN.encode(),
        f"{letter.agent}/{letter.id}".encode(),
        b"data",
        msgspec.json.encode(document),
    ]
    try:
        envelope = codec.decode(topology.type_of(stream_of(letter)), "0-1", edited)
    except codec.UndecodableError as error:
        raise InvalidEditError(str(error)) from None
    for what, now, before in (
        ("photo_id", envelope.photo_id, letter.photo_id),
        ("session_id", envelope.session_id, letter.session_id),
    ):
        if before and now != before:
            raise InvalidEditError(
                f"{what} is {now or 'missing'} now and was {before}: it must stay, because the session counts"
                " this photo under it. Publish another photo as a new event"
            )
    return edited

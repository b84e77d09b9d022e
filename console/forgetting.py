"""What is kept about a session, and removing it: records, dead letters, and blobs that nobody else needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from events import keys, topology
from events.identities import SessionId
from shared.blobs import SCHEME, BlobMissingError
from shared.reports.photo import photos_of_session, read_photo_report, session_prefix
from shared.streams.dead import DeadFilter, DeadLetters
from shared.streams.letters import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from events.keys import Keys
    from shared.blobs import BlobStore
    from shared.sessions.shared_store import SharedSessions

_CONTENT = re.compile(rb"store:originals/([0-9a-f]{64})")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What forgetting a session will remove."""

    session: SessionId
    photos: list[str]
    """Photo ids with a record."""
    letters: list[DeadLetter]
    blobs: list[str]
    """Keys in the store."""

    @property
    def empty(self) -> bool:
        """Whether nothing is kept."""
        return not (self.photos or self.letters or self.blobs)

    @property
    def sentence(self) -> str:
        """What it is, in words."""
        counts = (
            (self.photos, "photo records"),
            (self.letters, "dead letters"),
            (self.blobs, "stored files"),
        )
        return ", ".join(f"{len(these)} {what}" for these, what in counts)


async def look(redis: Redis, store: BlobStore, session: SessionId, *, lanes: int) -> Plan:
    """Find everything that is kept about a session.

    Looks through all dead letters, entries on their way and photo reports: one picture may have many users.
    """
    dead = DeadLetters(redis, lanes=lanes)
    mine, others = set[bytes](), set[bytes]()
    letters: list[DeadLetter] = []
    async for letter in dead.find(DeadFilter()):
        contents = {sha for field in await dead.original(letter) for sha in _CONTENT.findall(field)}
        if letter.session_id == session:
            letters.append(letter)
            mine |= contents
        else:
            others |= contents
    own = session_prefix(session)
    blobs = [key async for key in store.keys(own)]
    mine |= {report.sha256.encode() for report in await photos_of_session(store, session)}
    async for key in store.keys("reports/"):
        if not key.startswith(own) and "/photos/" in key:
            try:
                others.add((await read_photo_report(store, SCHEME + key)).sha256.encode())
            except (BlobMissingError, msgspec.MsgspecError):
                continue
    others |= await _on_their_way(redis, lanes)
    free = {sha.decode() for sha in mine - others}
    for folder in ("originals/", "previews/", "facts/"):
        blobs += [key async for key in store.keys(folder) if key.removeprefix(folder)[:64] in free]
    fetch: Callable[..., Awaitable[Any]] = redis.zrange
    photos = [raw.decode() for raw in await fetch(_lane(session, lanes).session_photos(session), 0, -1)]
    return Plan(session=session, photos=photos, letters=letters, blobs=blobs)


async def forget(redis: Redis, store: BlobStore, plan: Plan, sessions: SharedSessions, *, lanes: int) -> None:
    """Remove what was found. Cut short, it can be done again."""
    dead = DeadLetters(redis, lanes=lanes)
    for letter in plan.letters:
        await dead.discard(letter)
    for key in plan.blobs:
        await store.delete(SCHEME + key)
    lane = _lane(plan.session, lanes)
    for photo in plan.photos:
        await redis.delete(lane.photo(photo))
    await sessions.delete(plan.session)


def _lane(session: SessionId, lanes: int) -> Keys:
    return keys.lane_of(session, lanes)


async def _on_their_way(redis: Redis, lanes: int) -> set[bytes]:
    """Contents that entries refer to which wait or are in hand now."""
    fetch: Callable[..., Awaitable[Any]] = redis.execute_command
    found: set[bytes] = set()
    for lane in keys.all_lanes(lanes):
        for stage in topology.PIPELINE:
            for name in stage.reads:
                start = "-"
                while page := await fetch("XRANGE", lane.stream(name), start, "+", "COUNT", 500):
                    found |= {sha for _, flat in page for field in flat for sha in _CONTENT.findall(field)}
                    start = "(" + page[-1][0].decode()
            for member in await fetch("ZRANGE", lane.delayed(stage.agent), 0, -1):
                found |= set(_CONTENT.findall(member))
    return found

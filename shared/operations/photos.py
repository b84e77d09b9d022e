"""Reads photo records by id, by file name or by session."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from events import keys, topology
from events.connection import call, server_of
from shared.delivery.photo_record import AgentPart, PhotoRecord, Submitted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from redis.asyncio import Redis

_PART = msgspec.json.Decoder(AgentPart)
_SCANNED = 500
_SUBMITTED = msgspec.json.Decoder(Submitted)


async def show(redis: Redis, photo_id: str, *, lanes: int = 1) -> PhotoRecord | None:
    """Return a photo's record by its id; None if there is none (any more)."""
    for lane in keys.all_lanes(lanes):
        record = await _read(redis, lane.photo(photo_id), photo_id)
        if record is not None:
            return record
    return None


async def of_ids(redis: Redis, wanted: Iterable[tuple[int | None, str]]) -> dict[str, PhotoRecord]:
    """Return the records that there are of some photos, by id; `wanted`: the lane and the id of each."""
    by_lane: dict[int | None, list[str]] = defaultdict(list)
    for number, photo_id in wanted:
        by_lane[number].append(photo_id)
    found: dict[str, PhotoRecord] = {}
    for number, ids in by_lane.items():
        lane = keys.Keys(number)
        async with redis.pipeline(transaction=False) as pipe:
            for photo_id in ids:
                pipe.hgetall(lane.photo(photo_id))
            raws: list[dict[bytes, bytes]] = await pipe.execute()
        found |= {photo_id: _record(raw, photo_id) for photo_id, raw in zip(ids, raws, strict=True) if raw}
    return found


async def by_file_name(redis: Redis, file_name: str, *, lanes: int = 1, most: int = 20) -> list[PhotoRecord]:
    """Return records of photos with that file name. Scans all records: for a person's question only."""
    found: list[PhotoRecord] = []
    for lane in keys.all_lanes(lanes):
        prefix = lane.photo("")
        keys_found: AsyncIterator[bytes] = redis.scan_iter(match=_glob(prefix) + "*", count=1000)
        async for key in keys_found:
            try:
                name = await call(redis, "HGET", key, "file_name")
            except Exception:  # noqa: BLE001, S112 - a foreign value under our prefix is no photo
                continue
            if name is not None and name.decode("utf-8", "replace") == file_name:
                record = await _read(redis, key.decode(), key.decode().removeprefix(prefix))
                if record:
                    found.append(record)
            if len(found) >= most:
                return found
    return found


async def pages(redis: Redis, *, lanes: int = 1) -> AsyncIterator[list[PhotoRecord]]:
    """Yield all photo records, some hundred at a time, in no order. One may come twice."""
    for lane in keys.all_lanes(lanes):
        prefix = lane.photo("")
        # on a cluster, the node of this lane
        server = await server_of(redis, lane.paused)
        cursor = 0
        while True:
            # bytes, as every reply that nobody decodes
            found: tuple[int, list[bytes]] = await call(
                server, "SCAN", cursor, "MATCH", _glob(prefix) + "*", "COUNT", _SCANNED, "TYPE", "hash"
            )
            cursor, names = found
            async with redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hgetall(name)
                raws: list[dict[bytes, bytes]] = await pipe.execute() if names else []
            yield [
                _record(raw, name.decode().removeprefix(prefix))
                for name, raw in zip(names, raws, strict=True)
                if raw
            ]
            if not cursor:
                break


async def of_session(
    redis: Redis, session_id: str, *, lanes: int = 1, most: int | None = None
) -> list[PhotoRecord]:
    """Return the records of a session's photos, in the order in which they came; `most`: only the first."""
    lane = keys.lane_of(session_id, lanes)
    ids: list[bytes] = await call(redis, "ZRANGE", lane.session_photos(session_id), 0, (most or 0) - 1)
    names = [raw.decode() for raw in ids]
    records = []
    for start in range(0, len(names), _SCANNED):
        page = names[start : start + _SCANNED]
        async with redis.pipeline(transaction=False) as pipe:
            for photo in page:
                pipe.hgetall(lane.photo(photo))
            raws: list[dict[bytes, bytes]] = await pipe.execute()
        records += [
            _record(raw, photo)
            if raw
            else PhotoRecord(photo_id=photo, session_id=session_id, file_name=None, parts=[])
            for photo, raw in zip(page, raws, strict=True)
        ]
    return records


async def count_of_session(redis: Redis, session_id: str, *, lanes: int = 1) -> int:
    """Return how many photos of a session are known."""
    return int(await call(redis, "ZCARD", keys.lane_of(session_id, lanes).session_photos(session_id)))


async def postponed_of_session(
    redis: Redis, session_id: str, *, lanes: int = 1, limit: int = 20
) -> list[tuple[PhotoRecord, AgentPart]]:
    """Return the session's postponed photos that come back first, each with the part that postponed it."""
    found = [
        (record, part)
        for record in await of_session(redis, session_id, lanes=lanes)
        if (part := record.postponed) is not None
    ]
    return sorted(found, key=lambda one: one[1].until)[:limit]


def _glob(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[]{}" else c for c in text)


async def _read(redis: Redis, key: str, photo_id: str) -> PhotoRecord | None:
    raw: dict[bytes, bytes] = await call(redis, "HGETALL", key)
    return _record(raw, photo_id) if raw else None


def _record(raw: dict[bytes, bytes], photo_id: str) -> PhotoRecord:
    parts = []
    for agent in topology.AGENTS:
        if agent.encode() in raw:
            try:
                parts.append(_PART.decode(raw[agent.encode()]))
            except msgspec.MsgspecError:
                continue
    session, name = raw.get(b"session"), raw.get(b"file_name")
    return PhotoRecord(
        photo_id=photo_id,
        session_id=session.decode("utf-8", "replace") if session else None,
        file_name=name.decode("utf-8", "replace") if name else None,
        parts=parts,
        unknown_fields=[name for name in raw.get(b"unknown_fields", b"").decode().split(", ") if name],
        submitted=_submitted(raw.get(b"submitted")),
    )


def _submitted(note: bytes | None) -> Submitted | None:
    try:
        return _SUBMITTED.decode(note) if note else None
    except msgspec.MsgspecError:
        return None

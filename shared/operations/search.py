"""Finds photos, sessions and dead letters by whatever a person has of them: an id, a name, an address."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import msgspec

from events import identities, keys, topology
from events.connection import call
from events.identities import InvalidIdError
from shared.delivery.photo_record import PhotoRecord
from shared.operations import photos
from shared.operations.dead_letters import DeadFilter

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.operations.dead_letters import DeadLetters

_TRACE: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_PAGE: Final = 500
MOST: Final = 50
"""Photos that a search returns; it says when there are more."""


class Found(msgspec.Struct, kw_only=True):
    """What a search found."""

    photos: list[PhotoRecord] = []
    session: str = ""
    letters: int = 0
    """Dead letters of a photo of that id, file name or trace."""
    letters_filter: DeadFilter = DeadFilter()
    complete: bool = True
    """False: there was more to look at than time."""
    more: bool = False
    """There are more than MOST photos, or may be."""


class Search:
    """Looks in Redis. Raises what redis-py raises when Redis is away."""

    def __init__(self, redis: Redis, letters: DeadLetters, *, lanes: int) -> None:
        self._redis = redis
        self._letters = letters
        self._lanes = lanes

    async def find(self, text: str, *, seconds: float = 3.0) -> Found:
        """Find what fits, best first; looking through records and events ends after `seconds`."""
        until = time.monotonic() + seconds
        text = text.strip()
        found = Found()
        if not text:
            return found
        trace = _TRACE.search(text.lower())
        if "://" in text and not trace:
            await self._by_address(text, found, until)
            return found
        if trace is None:
            record = await self._by_id(text)
            if record is not None:
                found.photos.append(record)
            if await self._is_session(text):
                found.session = text
        if not found.photos and not found.session:
            await self._in_records(text, trace.group() if trace else "", found, until)
        found.letters_filter = DeadFilter(trace=trace.group()) if trace else DeadFilter(photo=text)
        found.letters = await self._letters.count(found.letters_filter)
        return found

    async def _by_id(self, text: str) -> PhotoRecord | None:
        try:
            return await photos.show(self._redis, identities.photo_id(text), lanes=self._lanes)
        except InvalidIdError:
            return None

    async def _is_session(self, text: str) -> bool:
        try:
            lane = keys.lane_of(identities.session_id(text), self._lanes)
        except InvalidIdError:
            return False
        return bool(await call(self._redis, "EXISTS", lane.session(text)))

    async def _in_records(self, text: str, trace: str, found: Found, until: float) -> None:
        """Look through all photo records for a part of a file name, or for a trace."""
        wanted = text.casefold()
        async for page in photos.pages(self._redis, lanes=self._lanes):
            for record in page:
                name = (record.file_name or "").casefold()
                if (record.trace_id == trace) if trace else wanted in name:
                    found.photos.append(record)
            found.more = len(found.photos) >= MOST
            found.complete = found.more or time.monotonic() <= until
            if found.more or not found.complete:
                break
        found.photos.sort(key=lambda one: (one.file_name != text, one.file_name or ""))
        del found.photos[MOST:]

    async def _by_address(self, text: str, found: Found, until: float) -> None:
        """Look for a SharePoint address among the photos that were validated in the last days."""
        wanted = unquote(text).rstrip("/").casefold()
        for lane in keys.all_lanes(self._lanes):
            stream, start = lane.stream(topology.VALIDATED), "+"
            while page := await call(self._redis, "XREVRANGE", stream, start, "-", "COUNT", _PAGE):
                for _, flat in page:
                    data = dict(zip(flat[::2], flat[1::2], strict=False)).get(b"data", b"")
                    photo_id = _photo_at(data, wanted)
                    if photo_id and (record := await self._by_id(photo_id)):
                        found.photos.append(record)
                        return
                if time.monotonic() > until:
                    found.complete = False
                    return
                start = f"({page[-1][0].decode()}"


class _Item(msgspec.Struct):
    web_url: str = ""


class _Validated(msgspec.Struct):
    photo_id: str
    item: _Item


def _photo_at(data: bytes, wanted: str) -> str:
    try:
        event = msgspec.json.decode(data, type=_Validated)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    address = unquote(event.item.web_url).rstrip("/").casefold()
    return event.photo_id if address and wanted.startswith(address) else ""

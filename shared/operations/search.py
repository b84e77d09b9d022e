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
from shared.operations import letter_names, photos
from shared.operations.dead_letters import DeadFilter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

    from shared.operations.dead_letters import DeadLetters

_TRACE: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_PAGE: Final = 500
_IDS: Final = 5000
"""Session ids that are read at a time."""
_SENTENCE: Final = 12
"""Characters from which on a text is looked for in error messages, too: a request id, the name
of the file in SharePoint. A shorter one would find words of other sentences."""
MOST: Final = 50
"""Photos that a search returns; it says when there are more."""


class Found(msgspec.Struct, kw_only=True):
    """What a search found."""

    photos: list[PhotoRecord] = []
    session: str = ""
    """The one of exactly that id."""
    sessions: list[str] = []
    """Sessions whose id contains it, those used last first, at most MOST."""
    letters: int = 0
    """Dead letters of a photo of that id, file name or trace."""
    letters_filter: DeadFilter = DeadFilter()
    complete: bool = True
    """False: there was more to look at than time."""
    more: bool = False
    """There are more than MOST photos or sessions, or may be."""


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
            if trace is None:
                await self._in_sessions(text, found, until)
            await self._in_records(text, trace.group() if trace else "", found, until)
            if not found.photos and letter_names.is_stored(text):
                await self._by_address(f"/{text}", found, until)
        await self._in_letters(text, trace.group() if trace else "", found)
        return found

    async def _in_letters(self, text: str, trace: str, found: Found) -> None:
        found.letters_filter = DeadFilter(trace=trace) if trace else DeadFilter(photo=text)
        found.letters = await self._letters.count(found.letters_filter)
        if not (found.letters or trace or found.photos or found.session):
            found.letters_filter = DeadFilter(photo=letter_names.containing(text))
            found.letters = await self._letters.count(found.letters_filter)

    async def _in_sessions(self, text: str, found: Found, until: float) -> None:
        """Look through the ids of all sessions, which are in two lists of each lane by their last use."""
        wanted, used = letter_names.containing(text), dict[str, float]()
        for lane in keys.all_lanes(self._lanes):
            for index in (lane.session_open, lane.session_lru):
                start = 0
                while flat := await call(
                    self._redis, "ZRANGE", index, start, start + _IDS - 1, "REV", "WITHSCORES"
                ):
                    scores = {raw.decode("utf-8", "replace"): score for raw, score in _pairs(flat)}
                    used |= {name: float(scores[name]) for name in letter_names.fitting(wanted, scores)}
                    start += _IDS
                    if time.monotonic() > until:
                        found.complete = False
                        break
        found.sessions = sorted(used, key=lambda name: -used[name])[:MOST]
        found.more = len(used) > MOST

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
        """Look through all photo records for a trace, or for a part of a file name or of an error message."""
        wanted = text.casefold()
        async for page in photos.pages(self._redis, lanes=self._lanes):
            for record in page:
                name = (record.file_name or "").casefold()
                said = (part.message.casefold() for part in record.parts if len(wanted) >= _SENTENCE)
                if (
                    (record.trace_id == trace)
                    if trace
                    else wanted in name or any(wanted in one for one in said)
                ):
                    found.photos.append(record)
            enough = len(found.photos) >= MOST
            found.more = found.more or enough
            found.complete = found.complete and (enough or time.monotonic() <= until)
            if enough or not found.complete:
                break
        found.photos.sort(key=lambda one: (one.file_name != text, one.file_name or ""))
        del found.photos[MOST:]

    async def _by_address(self, text: str, found: Found, until: float) -> None:
        """Look for a SharePoint address, or its end after a ``/``, among the last days' validated photos."""
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
    is_it = address.endswith(wanted) if wanted.startswith("/") else wanted.startswith(address)
    return event.photo_id if address and is_it else ""


def _pairs(flat: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)

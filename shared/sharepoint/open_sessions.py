"""Remembers the upload sessions that are open, so that another process can continue one.

SharePoint keeps a name for the session that was opened for it, and sends its address only once. A worker that
dies would leave a name that nobody can upload to until the session expires. The address is a secret: it is a
permission to write. So it lies in Redis alone, ends with the session, and is in no log.
"""

from __future__ import annotations

import hashlib
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from events.keys import Keys

_DEFAULT_SECONDS: Final = 900.0
"""How long an address is kept if SharePoint does not say when its session ends."""
_LONGEST_SECONDS: Final = 86_400.0


class OpenSession(msgspec.Struct, frozen=True, kw_only=True):
    """An upload session: its address, who sends to it, and when bytes arrived last."""

    url: str
    owner: str
    """The uploader that sends; another one waits until this one has been silent for a while."""
    seen: float
    """Unix time in seconds."""
    expires: str = ""
    """RFC 3339, as SharePoint reported it."""


class OpenSessions:
    """Keeps the open sessions in Redis, by the place of the file and its bytes."""

    def __init__(self, redis: Redis, keys: Keys, *, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._keys = keys
        self._clock = clock

    @staticmethod
    def name(place: str, data: bytes) -> str:
        """Return the name of the session that sends `data` to `place`. Other bytes are another session."""
        return hashlib.sha256(place.encode() + b"\0" + hashlib.sha256(data).digest()).hexdigest()

    def now(self) -> float:
        """Return the time in Unix seconds."""
        return self._clock()

    async def get(self, name: str) -> OpenSession | None:
        """Return the session of that name, None if there is none or it cannot be read."""
        raw = await self._redis.get(self._keys.upload(name))
        try:
            return msgspec.json.decode(raw, type=OpenSession) if raw else None
        except msgspec.DecodeError:
            return None

    async def keep(self, name: str, session: OpenSession) -> None:
        """Remember a session until it ends."""
        seconds = min(max(_until(session.expires, self._clock()), 1.0), _LONGEST_SECONDS)
        await self._redis.set(self._keys.upload(name), msgspec.json.encode(session), px=int(seconds * 1000))

    async def forget(self, name: str) -> None:
        """Forget a session that has ended."""
        await self._redis.delete(self._keys.upload(name))


def _until(expires: str, now: float) -> float:
    """Return the seconds until a session ends."""
    try:
        return datetime.fromisoformat(expires).timestamp() - now
    except ValueError:
        return _DEFAULT_SECONDS

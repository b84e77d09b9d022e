"""What every page of the console needs: the operations, the settings, the live state and the photo store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from console.explain import open_store
from console.pages import formats
from console.pages.texts import Texts
from shared.operations.access_keys import Role
from shared.operations.activity import Person
from shared.operations.bulk import Bulk, Kind

if TYPE_CHECKING:
    from datetime import tzinfo

    from redis.asyncio import Redis

    from console.pages.live import Live
    from shared.photo_store import BlobStore
    from shared.settings import Settings

RANKS: Final[dict[Role, int]] = {"viewer": 1, "operator": 2, "admin": 3}
"""Roles that may use the console; a publisher's key belongs to a system, which sees its own photos only."""


FOR_ADMINS: Final[frozenset[Kind]] = frozenset({"discard", "delete"})
"""Operations that an admin may start, stop and resume, and nobody else."""


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for a page, and in which language."""

    name: str = ""
    role: Role = "viewer"
    texts: Texts

    def may(self, role: Role) -> bool:
        """Return whether the person may do what this role may."""
        return bool(self.name) and RANKS[self.role] >= RANKS[role]

    @property
    def person(self) -> Person:
        """Return who it is, for the list of activities."""
        return Person(self.name, self.role)


VISIT: Final = web.RequestKey("visit", Visit)


class Desk:
    """Shared by the pages of one gateway process."""

    def __init__(self, redis: Redis, settings: Settings, live: Live) -> None:
        self.redis = redis
        self.settings = settings
        self.live = live
        self.bulk = Bulk(
            redis,
            lanes=settings.lanes,
            session_ttl=settings.session_ttl,
            archive_days=settings.archive_days,
            index=live.index,
        )
        self._store: BlobStore | None = None

    @property
    def store(self) -> BlobStore:
        """Return the photo store, opened when it is first needed. Raises CommandError."""
        if self._store is None:
            self._store = open_store(self.settings)
        return self._store

    @property
    def zone(self) -> tzinfo:
        """Return the time zone of the site."""
        return formats.zone(self.settings.sharepoint_time_zone)

    def trace_link(self, trace_id: str) -> str:
        """Return where people look at a trace; '' if there is none."""
        return f"{self.settings.jaeger_url.rstrip('/')}/trace/{trace_id}" if trace_id else ""

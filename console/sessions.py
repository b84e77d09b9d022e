"""Sessions as the operator asks for them: from Redis or not at all, since a command's memory knows none."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import msgspec

from console.errors import CommandError
from events import codec, keys, topology
from events.connection import call
from events.identities import SessionId
from events.types import SessionReported
from shared.sessions.shared_store import SharedSessions
from shared.sessions.store import SessionStats, SessionStore

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.sessions.record import Session
    from shared.settings import Settings

_REPORTED: Final = "session.reported"
_REPORTS: Final = 1000


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """One session."""

    session_id: str
    status: str
    """``open`` or ``completed``."""
    expected: int
    """Photos it has, 0 if nobody said so."""
    received: int
    validated: int
    dead: int
    postponed: int
    completion: int
    created_at: float
    """Unix time in seconds, as is `last_accessed`."""
    last_accessed: float
    access_count: int
    site: str
    library: str
    in_flight: int
    """Photos that were received and have not ended."""
    counters: dict[str, int]
    """Per agent: entries it has handed on."""

    @property
    def photos(self) -> int:
        """Count its photos: those that were announced, or those that came where these are more."""
        return max(self.expected, self.received, self.validated + self.dead)


def shared(redis: Redis, settings: Settings) -> SharedSessions:
    """All sessions. Raises CommandError where they are in no Redis."""
    if settings.session_backend == "memory":
        raise CommandError(
            "SESSION_BACKEND=memory: each process keeps its sessions to itself, and photos are not counted;"
            " with SESSION_BACKEND=redis they can be looked at here"
        )
    return SharedSessions(
        redis, lanes=settings.lanes, limit=settings.session_max, ttl=float(settings.session_ttl)
    )


async def read(redis: Redis, session_id: str, settings: Settings) -> SessionView | None:
    """One session, without noting an access; None if it is not there (any more)."""
    found = await shared(redis, settings).get(SessionId(session_id), touch=False)
    return _view(found) if found else None


async def needing_person(redis: Redis, session_id: str, settings: Settings) -> int | None:
    """How many photos of a session need a person, by its newest report; None while it has none."""
    found = await report_of(redis, session_id, settings)
    return None if found is None else len(found.needs_person)


async def report_of(redis: Redis, session_id: str, settings: Settings) -> SessionReported | None:
    """What the newest report of a session says; None while it has none.

    Only the newest thousand reports are looked at: what is older belongs to sessions nobody waits for.
    """
    stream = keys.lane_of(SessionId(session_id), settings.lanes).stream(_REPORTED)
    for entry_id, flat in await call(redis, "XREVRANGE", stream, "+", "-", "COUNT", _REPORTS):
        with contextlib.suppress(codec.UndecodableError):
            event = codec.decode(_REPORTED, entry_id.decode(), flat).event
            if isinstance(event, SessionReported) and event.session_id == session_id:
                return event
    return None


async def newest(redis: Redis, settings: Settings, *, most: int) -> tuple[list[SessionView], SessionStats]:
    """The sessions that were used last, and the numbers of all."""
    sessions = shared(redis, settings)
    views = [_view(session) for session in await sessions.newest(most)]
    # asked first: where Redis is away that was said already, and memory does not answer here
    store = SessionStore(
        redis, lanes=settings.lanes, limit=settings.session_max, ttl=float(settings.session_ttl)
    )
    return views, await store.stats()


def _view(session: Session) -> SessionView:
    counters = session.counters
    return SessionView(
        session_id=session.session_id,
        status=session.status,
        expected=session.expected,
        received=counters.get("received", 0),
        validated=counters.get("validated", 0),
        dead=counters.get("dead", 0),
        postponed=counters.get("postponed", 0),
        completion=session.completion,
        created_at=session.created_at,
        last_accessed=session.last_accessed,
        access_count=session.access_count,
        site=session.site,
        library=session.library,
        in_flight=session.in_flight,
        counters={agent: counters[agent] for agent in topology.AGENTS if agent in counters},
    )

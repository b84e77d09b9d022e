"""Keeps sessions in this process alone: the fall-back while Redis is away, and SESSION_BACKEND=memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from events.publisher import SESSION_TTL_IN_FLIGHT
from shared.sessions.record import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from events.identities import SessionId


class MemorySessions:
    """Keep the most recently used sessions, with the same limit and lifetime as in Redis, without progress.

    `unmerged` notes what was written here (not only remembered) for the return to Redis. A note goes when
    its session is evicted or expires, so nothing here grows past the limit.
    """

    def __init__(self, *, limit: int, ttl: float, clock: Callable[[], float] = time.time) -> None:
        """Start empty. `limit` counts sessions, `ttl` is in seconds, `clock` returns Unix seconds."""
        self._limit = limit
        self._ttl = ttl
        self._clock = clock
        self._sessions: OrderedDict[SessionId, Session] = OrderedDict()
        self.unmerged: OrderedDict[SessionId, int] = OrderedDict()
        """Sessions written or touched here, and how often they were touched."""
        self.deleted: OrderedDict[SessionId, float] = OrderedDict()
        """Sessions deleted here, and when (Unix seconds)."""
        self.created = 0
        self.evicted = 0
        self.expired = 0

    def __len__(self) -> int:
        self._sweep()
        return len(self._sessions)

    def peek(self, session_id: SessionId) -> Session | None:
        """Return the session without noting an access."""
        self._sweep()
        session = self._sessions.get(session_id)
        # a copy that was only peeked at keeps its place behind younger ones
        return session if session and not self._late(session) else None

    def touch(self, session_id: SessionId) -> Session | None:
        """Note an access and return the session."""
        session = self.peek(session_id)
        if session is None:
            return None
        session = msgspec.structs.replace(
            session, last_accessed=self._clock(), access_count=session.access_count + 1
        )
        self._keep(session)
        self.unmerged[session_id] = self.unmerged.get(session_id, 0) + 1
        return session

    def put(
        self,
        session_id: SessionId,
        *,
        expected: int = 0,
        site: str = "",
        library: str = "",
        close: bool = False,
    ) -> Session:
        """Create or update a session; the first `expected` counts, or that of a closing call."""
        now = self._clock()
        old = self.peek(session_id)
        if old is None:
            self.created += 1
            old = Session(session_id=session_id, created_at=now, last_accessed=now)
        session = msgspec.structs.replace(
            old,
            last_accessed=now,
            site=site or old.site,
            library=library or old.library,
            expected=expected if close else old.expected or expected,
        )
        self._keep(session)
        self.unmerged.setdefault(session_id, 0)
        return session

    def remember(self, session: Session) -> None:
        """Keep a copy of a session as it stands in Redis."""
        self._keep(session)

    def forget(self, session_id: SessionId) -> None:
        """Drop the copy of a session that is not in Redis any more."""
        self._sessions.pop(session_id, None)
        self.unmerged.pop(session_id, None)

    def delete(self, session_id: SessionId) -> bool:
        """Forget a session, also in Redis when that is back; return False if there was none here."""
        known = self._sessions.pop(session_id, None) is not None
        self.unmerged.pop(session_id, None)
        self.deleted[session_id] = self._clock()
        while len(self.deleted) > self._limit:
            self.deleted.popitem(last=False)
        return known

    def all(self) -> list[Session]:
        """Return all sessions, most recently used first."""
        self._sweep()
        return list(reversed(self._sessions.values()))

    def _keep(self, session: Session) -> None:
        self._sessions[session.session_id] = session
        self._sessions.move_to_end(session.session_id)
        while len(self._sessions) > self._limit:
            self.unmerged.pop(self._sessions.popitem(last=False)[0], None)
            self.evicted += 1

    def _sweep(self) -> None:
        # least recently used first: the walk ends at the first one that is young enough
        while self._sessions:
            first = next(iter(self._sessions.values()))
            if not self._late(first):
                return
            self._sessions.popitem(last=False)
            self.unmerged.pop(first.session_id, None)
            self.expired += 1

    def _late(self, session: Session) -> bool:
        waits = not session.finished or session.counters.get("dead", 0) > 0
        life = max(self._ttl, SESSION_TTL_IN_FLIGHT) if waits else self._ttl
        return session.last_accessed < self._clock() - life

"""`GET /v1/sessions/ID/report`: the report that a session's completion wrote, as its page or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from obstore.exceptions import BaseError as StoreError

from console import sessions
from console.explain import store_trouble
from console.gateway import problems
from console.gateway.access import READERS
from console.gateway.problems import Problem
from console.gateway.records_api import id_of, tagged, tagged_bytes
from events import identities
from events.identities import SessionId
from shared.operations import submissions
from shared.operations.janitor import PUBLIC_DAYS
from shared.photo_store import SCHEME, BlobMissingError
from shared.reports.session_report import report_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web
    from redis.asyncio import Redis

    from console.gateway.access import Door
    from shared.photo_store import BlobStore
    from shared.settings import Settings

PAGE_HEADERS: Final = {
    # The page has a policy of its own for what is inside. This one takes its origin away, so that whatever
    # came to stand in a report could not act with the reader's sign-in.
    "Content-Security-Policy": "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox;"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class ReportsApi:
    """Handles the requests for reports."""

    def __init__(self, redis: Redis, settings: Settings, door: Door, store: Callable[[], BlobStore]) -> None:
        self._redis = redis
        self._settings = settings
        self._door = door
        self._store = store

    async def report(self, request: web.Request) -> web.Response:
        """Answer with a session's report. Raises Problem."""
        caller = await self._door.admit(request, READERS)
        session_id = SessionId(id_of(request, identities.session_id))
        if caller.key.role == "publisher":
            lanes = self._settings.lanes
            owner = await submissions.source_of_session(self._redis, session_id, lanes=lanes)
            if not caller.may_see(owner):
                raise self._missing(session_id)
        if _wants_json(request):
            found = await sessions.report_of(self._redis, session_id, self._settings)
            if found is None:
                raise self._missing(session_id)
            answer = tagged(request, found)
        else:
            answer = tagged_bytes(request, await self._page(session_id), "text/html", PAGE_HEADERS)
        answer.headers["Vary"] = "Accept"
        return answer

    async def _page(self, session_id: SessionId) -> bytes:
        try:
            return await self._store().get(SCHEME + report_key(session_id))
        except BlobMissingError:
            raise self._missing(session_id) from None
        except (StoreError, OSError) as error:
            raise Problem(
                problems.STORE_AWAY, store_trouble(error, self._settings), headers={"Retry-After": "15"}
            ) from error

    def _missing(self, session_id: str) -> Problem:
        days = self._settings.store_retention_days
        kept = (
            f"it is kept for {days} days (STORE_RETENTION_DAYS)"
            if days
            else "it is kept until it is forgotten"
        )
        return Problem(
            problems.NOT_FOUND,
            f"there is no report of {session_id}, or this key may not see it: a session's report is written"
            f" when all its photos have ended, and {kept}; its JSON for {PUBLIC_DAYS} days",
        )


def _wants_json(request: web.Request) -> bool:
    """Return whether a request asks for JSON and not for a page."""
    accepted = request.headers.get("Accept", "").lower()
    return "json" in accepted and "text/html" not in accepted

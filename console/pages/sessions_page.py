"""The pages of sessions: how far each is, its photos, its report; close and forget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web
from markupsafe import Markup

from console import sessions
from console.pages import exports, rendering
from console.pages.desk import VISIT
from console.pages.guard import RefusedError, Route, form
from events import identities
from events.identities import InvalidIdError, SessionId
from events.publisher import InvalidEventError, Publisher, PublishRefusedError
from events.types import MAX_EXPECTED
from shared.operations import activity, forgetting, photos
from shared.operations.discarded import Discarded
from shared.photo_store import SCHEME, BlobMissingError
from shared.reports.session_report import report_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Container, Sequence

    from console.pages.desk import Desk
    from console.sessions import SessionView
    from shared.delivery.photo_record import PhotoRecord

_PAGE: Final = 50
_PHOTOS: Final = 500
_READ: Final = 5000
"""Records that are read to show those first that need somebody."""
_MOST: Final = 100_000
_REPORT_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox"
)
"""The report admits only its own style and script, by their hashes. The sandbox takes it out of our origin:
even a report that somebody replaced in the store could use no cookie of ours."""
_COLUMNS: Final = (
    "session_id", "status", "expected", "received", "validated", "dead", "postponed", "in_flight",
    "needs_person", "created_at", "last_accessed", "library",
)  # fmt: skip


class SessionsPage:
    """Lists sessions and shows one."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._discards = Discarded(desk.redis, desk.bulk.letters, lanes=desk.settings.lanes)

    @property
    def routes(self) -> list[Route]:
        """Return the requests of these pages."""
        return [
            Route("GET", "/sessions", "viewer", self._list),
            Route("GET", "/sessions.{format}", "viewer", self._export),
            Route("GET", "/sessions/{id}", "viewer", self._show),
            Route("GET", "/sessions/{id}/report", "viewer", self._report),
            Route("POST", "/sessions/{id}/close", "operator", self._close),
            Route("GET", "/sessions/{id}/forget", "admin", self._ask),
            Route("POST", "/sessions/{id}/forget", "admin", self._forget),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        most = _number(request, "most", _PAGE)
        views, stats = await sessions.newest(self._desk.redis, self._desk.settings, most=most)
        await self._desk.live.now()
        return await rendering.page(
            self._desk,
            request,
            "sessions",
            sessions=[(view, self._people(view.session_id)) for view in views],
            stats=stats,
            more=min(most + 500, _MOST) if stats.sessions > len(views) else 0,
        )

    def _people(self, session_id: str) -> int | None:
        report = self._desk.live.reports.of(session_id)
        return None if report is None else len(report.needs_person)

    async def _show(self, request: web.Request) -> web.Response:
        session_id, most = _id(request), _number(request, "most", _PHOTOS)
        view = await self._view(session_id)
        redis, lanes = self._desk.redis, self._desk.settings.lanes
        records = await photos.of_session(redis, session_id, lanes=lanes, most=max(most, _READ))
        total = await photos.count_of_session(redis, session_id, lanes=lanes)
        await self._desk.live.now()
        report = self._desk.live.reports.of(session_id)
        people = {photo.photo_id for photo in report.needs_person} if report else set()
        records.sort(key=lambda one: (_urgency(one, people), one.file_name or one.photo_id))
        only = request.query.get("only") == "people" and bool(people)
        if only:
            records = [one for one in records if one.photo_id in people]
            total = len(records)
        return await rendering.page(
            self._desk,
            request,
            "session",
            view=view,
            photos=records[:most],
            hidden=max(0, total - most),
            more=most + 5000,
            people=people,
            only=only,
            discarded=await self._discarded(view),
            report=report,
        )

    async def _discarded(self, view: SessionView) -> int:
        """Return how many of the session's dead photos were discarded: nobody is asked to replay them."""
        if not view.dead:
            return 0
        return min(await self._discards.of(view.session_id), view.dead)

    async def _view(self, session_id: SessionId) -> SessionView:
        view = await sessions.read(self._desk.redis, session_id, self._desk.settings)
        if view is None:
            raise RefusedError("error.no_session", 404)
        return view

    async def _report(self, request: web.Request) -> web.Response:
        session_id, texts = _id(request), request[VISIT].texts
        try:
            html = await self._desk.store.get(SCHEME + report_key(session_id))
        except BlobMissingError:
            raise RefusedError("error.no_report", 404) from None
        # the file in the store knows no console: people also send it by mail
        back = Markup('<p class="wrap back" lang="{}"><a href="{}">{}</a></p>').format(
            texts.language, rendering.address("sessions", session_id), texts("sessions.back", name=session_id)
        )
        return web.Response(
            body=html.replace(b"<body>", b"<body>\n" + back.encode(), 1),
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": _REPORT_POLICY, "Cache-Control": "private, no-cache"},
        )

    async def _close(self, request: web.Request) -> web.Response:
        session_id, given = _id(request), (await form(request)).get("expected", "").strip()
        view = await self._view(session_id)
        try:
            expected = int(given or view.received)
        except ValueError:
            expected = 0
        if not 0 < expected <= MAX_EXPECTED:
            raise RefusedError("error.expected", most=MAX_EXPECTED)
        settings = self._desk.settings
        publisher = Publisher(
            self._desk.redis,
            lanes=settings.lanes,
            session_ttl=settings.session_ttl,
            wait_replicas=settings.wait_replicas,
        )
        try:
            await publisher.close_session(session_id, expected=expected)
        except (InvalidEventError, PublishRefusedError) as error:
            raise RefusedError("error.plain", 409, why=str(error)) from None
        await activity.note(
            self._desk.redis, request[VISIT].person, "close session", f"{session_id}: {expected}"
        )
        return web.Response(status=303, headers={"Location": rendering.address("sessions", session_id)})

    async def _ask(self, request: web.Request) -> web.Response:
        session_id = _id(request)
        plan = await self._plan(session_id)
        return await rendering.page(self._desk, request, "forget", session_id=session_id, plan=plan)

    async def _plan(self, session_id: SessionId) -> forgetting.Plan:
        """Return what forgetting removes. Raises RefusedError where it must not be done."""
        view = await sessions.read(self._desk.redis, session_id, self._desk.settings)
        if view is not None and view.in_flight:
            raise RefusedError("error.in_flight", 409, n=view.in_flight)
        plan = await forgetting.look(
            self._desk.redis, self._desk.store, session_id, lanes=self._desk.settings.lanes
        )
        if view is None and plan.empty:
            raise RefusedError("error.no_session", 404)
        return plan

    async def _forget(self, request: web.Request) -> web.Response:
        session_id, desk = _id(request), self._desk
        plan = await self._plan(session_id)
        everything = sessions.shared(desk.redis, desk.settings)
        await forgetting.forget(
            desk.redis,
            desk.store,
            plan,
            everything,
            lanes=desk.settings.lanes,
            by=request[VISIT].person,
        )
        return web.Response(status=303, headers={"Location": "/sessions"})

    async def _export(self, request: web.Request) -> web.StreamResponse:
        await self._desk.live.now()

        async def rows() -> AsyncIterator[Sequence[object]]:
            views, _ = await sessions.newest(self._desk.redis, self._desk.settings, most=_MOST)
            for view in views:
                people = self._people(view.session_id)
                yield [people if name == "needs_person" else getattr(view, name) for name in _COLUMNS]

        return await exports.send(request, "sessions", _COLUMNS, rows())


def _id(request: web.Request) -> SessionId:
    try:
        return identities.session_id(request.match_info["id"])
    except InvalidIdError:
        raise RefusedError("error.no_session", 404) from None


def _urgency(record: PhotoRecord, people: Container[str | None]) -> int:
    """Return where a photo stands among its session's: those first that somebody has to look at."""
    if record.status == "validated":
        return 3 if record.photo_id in people else 4
    return {"dead": 0, "postponed": 1}.get(record.status, 2)


def _number(request: web.Request, name: str, otherwise: int) -> int:
    text = request.query.get(name, "")
    return min(max(int(text), 1), _MOST) if text.isdecimal() and len(text) < 9 else otherwise

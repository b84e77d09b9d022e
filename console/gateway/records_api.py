"""`GET /v1/photos/ID`, `GET /v1/sessions/ID` and its `close`: what the command line shows and does."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from obstore.exceptions import BaseError as StoreError

from console import sessions
from console.errors import CommandError
from console.gateway import bodies, problems
from console.gateway.access import PUBLISHERS, READERS
from console.gateway.answers import Close, Closed, PhotoResult, PhotoView, json_answer
from console.gateway.problems import Problem
from console.gateway.publishing import no_room
from events import identities
from events.codec import reason
from events.identities import InvalidIdError, PhotoId, SessionId
from events.publisher import InvalidEventError, PublishRefusedError
from shared.operations import activity, photos, submissions
from shared.photo_store import SCHEME, BlobMissingError
from shared.reports.photo_report import photo_key, read_photo_report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from redis.asyncio import Redis

    from console.gateway.access import Caller, Door
    from console.gateway.publishing import Intake
    from shared.delivery.photo_record import PhotoRecord
    from shared.photo_store import BlobStore
    from shared.settings import Settings

_MAX_CLOSE_BYTES = 1_000


class RecordsApi:
    """Handles the requests that look at photos and sessions."""

    def __init__(
        self, redis: Redis, settings: Settings, door: Door, intake: Intake, store: Callable[[], BlobStore]
    ) -> None:
        self._redis = redis
        self._settings = settings
        self._door = door
        self._intake = intake
        self._store = store

    async def photo(self, request: web.Request) -> web.Response:
        """Show one photo's way so far. Raises Problem."""
        caller = await self._door.admit(request, READERS)
        photo_id = id_of(request, identities.photo_id)
        record = await photos.show(self._redis, photo_id, lanes=self._settings.lanes)
        if record is None or not caller.may_see(record.submitted.source if record.submitted else None):
            raise Problem(problems.NOT_FOUND, self._no_photo(photo_id))
        return tagged(request, await self._view(record))

    def _no_photo(self, photo_id: str) -> str:
        hours = self._settings.photo_record_hours
        if not hours:
            return "no photo can be looked up: records of photos are off (PHOTO_RECORD_HOURS=0)"
        return (
            f"there is no photo {photo_id} (any more), or this key may not see it: a photo's record is kept"
            f" for {hours:g} hours (PHOTO_RECORD_HOURS)"
        )

    async def _view(self, record: PhotoRecord) -> PhotoView:
        trace = f"{self._settings.jaeger_url.rstrip('/')}/trace/{record.trace_id}" if record.trace_id else ""
        return PhotoView(
            photo_id=record.photo_id,
            session_id=record.session_id,
            file_name=record.file_name,
            status=record.status,
            trace_id=record.trace_id,
            trace=trace,
            submitted_at=record.submitted.at if record.submitted else None,
            agents=record.parts,
            unknown_fields=record.unknown_fields,
            result=await self._result(record) if record.status == "validated" else None,
        )

    async def _result(self, record: PhotoRecord) -> PhotoResult | None:
        session = SessionId(record.session_id) if record.session_id else None
        try:
            key = photo_key(session, PhotoId(record.photo_id))
            report = await read_photo_report(self._store(), SCHEME + key)
        except (BlobMissingError, CommandError, StoreError, OSError, msgspec.MsgspecError):
            # the record is the answer; what the store has is an addition
            return None
        return PhotoResult(
            verdict=report.verdict,
            name=report.item.name,
            web_url=report.item.web_url,
            outcome=report.item.outcome,
            needs_person=[one.column for one in report.needs_person],
        )

    async def session(self, request: web.Request) -> web.Response:
        """Show one session's counters. Raises Problem."""
        caller = await self._door.admit(request, READERS)
        return tagged(request, await self._session_of(request, caller))

    async def _session_of(self, request: web.Request, caller: Caller) -> sessions.SessionView:
        session_id = id_of(request, identities.session_id)
        lanes = self._settings.lanes
        owner = None
        if caller.key.role == "publisher":
            owner = await submissions.source_of_session(self._redis, session_id, lanes=lanes)
        view = await sessions.read(self._redis, session_id, self._settings) if caller.may_see(owner) else None
        if view is None:
            raise Problem(
                problems.NOT_FOUND,
                f"there is no session {session_id} (any more), or this key may not see it: a session appears"
                " when the first agent has handled its first photo, and a finished one is forgotten"
                f" {self._settings.session_ttl} s after its last use (SESSION_TTL)",
            )
        return view

    async def close(self, request: web.Request) -> web.Response:
        """Set how many photos were published into a session. Raises Problem."""
        caller = await self._door.admit(request, PUBLISHERS)
        body = await bodies.whole(
            request, _MAX_CLOSE_BYTES, seconds=10.0, remedy='send {"expected": 84}, or nothing'
        )
        try:
            wanted = msgspec.json.decode(body, type=Close) if body.strip() else Close()
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise Problem(
                problems.BAD_REQUEST, f'the body is not {{"expected": N}}: {reason(error)}'
            ) from None
        view = await self._session_of(request, caller)
        expected = view.received if wanted.expected is None else wanted.expected
        if not expected and wanted.expected is None:
            raise Problem(
                problems.BAD_REQUEST,
                f"no photo of {view.session_id} has come in yet: say how many it has, as expected",
            )
        publisher = self._intake.publisher(caller.key.source or "erni:gateway")
        try:
            counts = await publisher.close_session(view.session_id, expected=expected)
        except InvalidEventError as error:
            raise Problem(problems.BAD_REQUEST, str(error)) from None
        except PublishRefusedError as refusal:
            raise no_room(refusal) from None
        if counts and caller.key.role != "publisher":
            # a program that publishes closes each of its sessions: that is no news of a person
            who = activity.Person(caller.key.name, caller.key.role)
            await activity.note(self._redis, who, "close session", f"{view.session_id}: {counts}")
        return json_answer(Closed(session_id=view.session_id, expected=counts, received=view.received))


def tagged(request: web.Request, document: object) -> web.Response:
    """Return a JSON document with its entity tag; 304 if the client has it already."""
    return tagged_bytes(request, msgspec.json.encode(document) + b"\n", "application/json", {})


def tagged_bytes(
    request: web.Request, body: bytes, content_type: str, headers: Mapping[str, str]
) -> web.Response:
    """Return a body with its entity tag; 304 if the client has it already."""
    tag = hashlib.sha256(body).hexdigest()[:32]
    more = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache", **headers}
    known = [one.value for one in request.if_none_match or ()]
    if tag in known or known == ["*"]:
        return web.Response(status=304, headers=more)
    charset = "utf-8" if content_type.startswith("text/") else None
    return web.Response(body=body, content_type=content_type, charset=charset, headers=more)


def id_of(request: web.Request, check: Callable[[str], str]) -> str:
    """Return the id in the address. Raises Problem for what is none."""
    try:
        return check(request.match_info["id"])
    except InvalidIdError as error:
        raise Problem(problems.BAD_REQUEST, str(error)) from None

"""The page of everything that people did: who, what, how many, how far, with which result."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final, get_args

import msgspec

from console import sessions
from console.errors import CommandError
from console.pages import exports, rendering
from console.pages.desk import FOR_ADMINS, VISIT
from console.pages.filters import described, example, query_of
from console.pages.guard import RefusedError, Route
from events import identities
from events.identities import InvalidIdError
from shared.operations import activity, affected
from shared.operations.activity import Activity
from shared.operations.bulk import Kind, Operation, Progress, UnknownOperationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aiohttp import web

    from console.pages.desk import Desk
    from console.sessions import SessionView
    from shared.operations.access_keys import Role
    from shared.operations.affected import Fate
    from shared.operations.bulk import Bulk

_PAGE: Final = 50


class Line(msgspec.Struct, frozen=True):
    """One activity, with the operation that it started."""

    activity: Activity
    operation: Operation | None = None
    progress: Progress | None = None


async def lines(bulk: Bulk, activities: Sequence[Activity]) -> list[Line]:
    """Return activities with what is known of their operations."""
    return [await _line(bulk, one) for one in activities]


async def _line(bulk: Bulk, one: Activity) -> Line:
    if one.operation and one.action in get_args(Kind):
        with contextlib.suppress(UnknownOperationError):
            return Line(one, await bulk.get(one.operation), await bulk.progress(one.operation))
    return Line(one)


class ActivityPage:
    """Shows the list, and one operation in full."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Return the requests of this page."""
        return [
            Route("GET", "/activity", "viewer", self._show),
            Route("GET", "/activity.{format}", "viewer", self._export),
            Route("GET", "/operations/{id}", "viewer", self._operation),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        before = exports.entry_id(request.query.get("before", ""))
        found = await activity.newest(self._desk.redis, most=_PAGE + 1, before=before)
        return await rendering.page(
            self._desk,
            request,
            "activity",
            activities=await lines(self._desk.bulk, found[:_PAGE]),
            older=found[_PAGE - 1].id if len(found) > _PAGE else "",
            before=before,
        )

    async def _operation(self, request: web.Request) -> web.Response:
        operation_id = request.match_info["id"]
        try:
            operation = await self._desk.bulk.get(operation_id)
            progress = await self._desk.bulk.progress(operation_id)
        except UnknownOperationError:
            raise RefusedError("error.no_operation", 404) from None
        wanted, letters = operation.selection.filter, self._desk.bulk.letters
        # what was discarded is in the archive now
        archived = operation.kind in ("discard", "delete")
        needed: Role = "admin" if operation.kind in FOR_ADMINS else "operator"
        only = operation.affected[0] if operation.selection.count == len(operation.affected) == 1 else None
        return await rendering.page(
            self._desk,
            request,
            "operation",
            operation=operation,
            progress=progress,
            may_change=request[VISIT].may(needed),
            # those that say more than their names do stand apart
            conditions=described(
                request[VISIT].texts,
                msgspec.structs.replace(wanted, session=None, id=None if only else wanted.id),
                await example(letters, wanted, archived=archived),
            ),
            query=query_of(wanted),
            only=only,
            days=self._desk.settings.archive_days,
            archive=_archive_query(operation),
            fates=await self._fates(operation, progress),
            session=await self._session(operation, progress),
        )

    async def _fates(self, operation: Operation, progress: Progress) -> list[Fate]:
        """Return where the photos of a replay are, if it names them."""
        if operation.kind != "replay" or not progress.handled:
            return []
        refused = {one.partition(":")[0] for one in progress.refusals}
        kept = 3600 * self._desk.settings.photo_record_hours
        return await affected.fates(
            self._desk.redis,
            operation.affected,
            handled=progress.handled,
            refused=refused,
            fresh=time.time() - operation.started_at < kept,
        )

    async def _session(self, operation: Operation, progress: Progress) -> SessionView | None:
        """Return how far the session is that a large replay is about."""
        if operation.kind != "replay" or not progress.handled or operation.affected or not operation.session:
            return None
        with contextlib.suppress(InvalidIdError, CommandError):
            session_id = identities.session_id(operation.session)
            return await sessions.read(self._desk.redis, session_id, self._desk.settings)
        return None

    async def _export(self, request: web.Request) -> web.StreamResponse:
        columns = ("at", "who", "role", "action", "what", "operation")

        async def rows() -> AsyncIterator[Sequence[object]]:
            before = ""
            while found := await activity.newest(self._desk.redis, most=500, before=before):
                for one in found:
                    yield (one.at, one.who.name, one.who.role, one.action, one.what, one.operation)
                before = found[-1].id

        return await exports.send(request, "activity", columns, rows())


def _archive_query(operation: Operation) -> dict[str, object]:
    """Return the filter that finds in the archive what an operation has discarded.

    There it has new ids, and its age is that of another moment.
    """
    wanted = msgspec.structs.replace(
        operation.selection.filter, id=None, older_than=None, newer_than=None, limit=None
    )
    query = query_of(wanted)
    if len(operation.affected) == 1:
        query["photo"] = operation.affected[0].photo_id
    return query

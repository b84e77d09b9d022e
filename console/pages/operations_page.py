"""Asks before dead letters are changed, with the exact number, and starts, stops and resumes operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

import msgspec
from aiohttp import web

from console.pages import rendering
from console.pages.desk import FOR_ADMINS, VISIT
from console.pages.filters import described, example, filter_in, query_of
from console.pages.guard import RefusedError, Route, back_to, form
from shared.operations.bulk import OF_ARCHIVE, Kind, Selection, UnknownOperationError

if TYPE_CHECKING:
    from console.pages.desk import Desk
    from shared.operations.access_keys import Role
    from shared.operations.bulk import Operation

_SELECTION: Final = msgspec.json.Decoder(Selection)
_PLACES: Final = 1000
_NAMED: Final = 5
"""Photos that the question names."""


class OperationsPage:
    """The way from a filter to an operation."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Return the requests of this page. What a discard needs beyond an operator is looked at inside."""
        return [
            Route("GET", "/running", "viewer", self._running),
            Route("GET", "/ask/{kind}", "operator", self._ask),
            Route("POST", "/operations", "operator", self._start),
            Route("POST", "/operations/{id}/stop", "operator", self._stop),
            Route("POST", "/operations/{id}/resume", "operator", self._resume),
        ]

    async def _running(self, request: web.Request) -> web.Response:
        """Answer the strip of running operations alone, which an open page renews more often than itself."""
        back = back_to(request.query.get("back", ""))
        # of nothing else: the rest of the open page is as old as it was
        versions = {"running": (await self._desk.live.now()).versions["running"]}
        return await rendering.page(
            self._desk,
            request,
            "running",
            strip_of=back,
            strip_versions=msgspec.json.encode(versions).decode(),
        )

    async def _ask(self, request: web.Request) -> web.Response:
        kind = _kind(request, request.match_info["kind"])
        wanted = filter_in(request.query, self._desk.zone)
        selection = await self._desk.bulk.select(wanted, kind)
        archived = kind in OF_ARCHIVE
        back = back_to(request.query.get("back", ""), "/archive" if archived else "/dead")
        return await rendering.page(
            self._desk,
            request,
            "ask",
            kind=kind,
            selection=selection,
            packed=msgspec.json.encode(selection).decode(),
            conditions=described(
                request[VISIT].texts,
                wanted,
                await example(self._desk.bulk.letters, wanted, archived=archived),
            ),
            names=await self._names(selection, archived=archived),
            listing=rendering.address("archive" if archived else "dead", **query_of(wanted)),
            days=self._desk.settings.archive_days,
            back=back,
        )

    async def _names(self, selection: Selection, *, archived: bool) -> list[str]:
        """Return how people call the first photos of a selection."""
        wanted = msgspec.structs.replace(selection.filter, limit=_NAMED)
        return [
            letter.file_name or letter.photo_id or letter.id
            async for letter in self._desk.bulk.letters.find(
                wanted, archived=archived, upto=selection.upto, now=selection.at
            )
        ]

    async def _start(self, request: web.Request) -> web.Response:
        given = await form(request)
        kind = _kind(request, given.get("kind", ""))
        try:
            selection = _SELECTION.decode(given.get("selection", ""))
            rate = float(given["rate"]) if given.get("rate") else None
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise RefusedError("error.address") from None
        if len(selection.upto) > _PLACES or (rate is not None and not 0 < rate < 1e6):
            raise RefusedError("error.address")
        operation = await self._desk.bulk.start(kind, selection, request[VISIT].person, rate=rate)
        return web.Response(status=303, headers={"Location": f"/operations/{operation.id}"})

    async def _stop(self, request: web.Request) -> web.Response:
        operation = await self._operation(request)
        await self._desk.bulk.stop(operation.id, request[VISIT].person)
        return await self._back(request, operation)

    async def _resume(self, request: web.Request) -> web.Response:
        operation = await self._operation(request)
        await self._desk.bulk.resume(operation.id, request[VISIT].person)
        return await self._back(request, operation)

    async def _operation(self, request: web.Request) -> Operation:
        try:
            operation = await self._desk.bulk.get(request.match_info["id"])
        except UnknownOperationError:
            raise RefusedError("error.no_operation", 404) from None
        _kind(request, operation.kind)
        return operation

    async def _back(self, request: web.Request, operation: Operation) -> web.Response:
        given = await form(request)
        where = back_to(given.get("back", ""), f"/operations/{operation.id}")
        return web.Response(status=303, headers={"Location": where})


def _kind(request: web.Request, text: str) -> Kind:
    """Return a kind of operation that the person may start. Raises RefusedError."""
    kind: Kind | None = next((one for one in get_args(Kind) if one == text), None)
    if kind is None:
        raise RefusedError("error.no_page", 404)
    needed: Role = "admin" if kind in FOR_ADMINS else "operator"
    visit = request[VISIT]
    if not visit.may(needed):
        raise RefusedError("error.role", 403, role=visit.texts(f"role.{needed}"))
    return kind

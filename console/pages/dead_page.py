"""The pages of dead letters: grouped by cause, one cause, one letter, and the archive."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from console.pages import exports, rendering
from console.pages.desk import VISIT
from console.pages.filters import (
    WrongAgeError,
    cause_text,
    described,
    example,
    filter_in,
    query_of,
    resolved,
)
from console.pages.guard import RefusedError, Route, form
from events import keys, topology
from shared.delivery.dead_letter import REASONS, DeadLetter
from shared.operations import editing, letter_names
from shared.operations.dead_letters import Bounds, archived_at, place_of
from shared.operations.editing import InvalidEditError
from shared.telemetry.redact import scrub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from console.pages.desk import Desk
    from shared.operations.dead_letters import DeadFilter

_PAGE: Final = 100
_SHOWN: Final = 20_000
"""Bytes shown of a field."""
_COLUMNS: Final = (
    "id", "agent", "reason", "error_type", "message", "fingerprint", "failed_at", "photo_id", "session_id",
    "file_name", "deliveries", "replays", "traceparent",
)  # fmt: skip


class DeadPage:
    """Shows dead letters and discarded ones, and replays an edited one."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._letters = desk.bulk.letters

    @property
    def routes(self) -> list[Route]:
        """Return the requests of these pages."""
        return [
            Route("GET", "/dead", "viewer", self._groups),
            Route("GET", "/archive", "viewer", self._groups),
            Route("GET", "/dead/list", "viewer", self._list),
            Route("GET", "/archive/list", "viewer", self._list),
            Route("GET", "/dead.{format}", "viewer", self._export),
            Route("GET", "/archive.{format}", "viewer", self._export),
            Route("GET", "/dead/{agent}/{id}", "viewer", self._show),
            Route("GET", "/archive/{agent}/{id}", "viewer", self._show),
            Route("POST", "/dead/{agent}/{id}/edit", "operator", self._edit),
        ]

    def _filter(self, request: web.Request) -> DeadFilter:
        return filter_in(request.query, self._desk.zone)

    async def _groups(self, request: web.Request) -> web.Response:
        archived, wrong = _archived(request), ""
        typed = await resolved(request.query, self._letters, archived=archived)
        try:
            wanted = filter_in(typed or request.query, self._desk.zone)
        except WrongAgeError as error:
            wanted, wrong = error.rest, rendering.spoken(self._desk, request)(error.key, **error.values)
        if typed is not None and not wrong:
            where = rendering.address("archive" if archived else "dead", **typed)
            return web.Response(status=303, headers={"Location": where, "Cache-Control": "no-store"})
        groups = [] if wrong else await self._letters.groups(wanted, archived=archived)
        texts = request[VISIT].texts
        groups, query = [group for group in groups if group.newest], query_of(wanted)
        return await rendering.page(
            self._desk,
            request,
            "groups",
            status=400 if wrong else 200,
            archived=archived,
            wrong=wrong,
            newer_than=request.query.get("newer_than", "").strip() if wrong else query.get("newer_than", ""),
            groups=groups,
            total=sum(group.count for group in groups),
            wanted=wanted,
            query=query,
            within=letter_names.within,
            conditions=described(texts, wanted, await example(self._letters, wanted, archived=archived)),
            reasons=REASONS,
            days=self._desk.settings.archive_days,
            cause_text=lambda letter: cause_text(texts, letter),
            one_of=one_of,
            archived_at=archived_at,
            now=time.time(),
        )

    async def _list(self, request: web.Request) -> web.Response:
        archived, wanted = _archived(request), self._filter(request)
        after, letters = _bounds(request.query.get("after", "")), list[DeadLetter]()
        async for letter in self._letters.find(wanted, archived=archived, after=after):
            letters.append(letter)
            if len(letters) > _PAGE:
                break
        more, texts = len(letters) > _PAGE, request[VISIT].texts
        letters = letters[:_PAGE]
        return await rendering.page(
            self._desk,
            request,
            "letters",
            archived=archived,
            letters=letters,
            total=await self._letters.count(wanted, archived=archived),
            query=query_of(wanted),
            conditions=described(texts, wanted, await example(self._letters, wanted, archived=archived)),
            following=_after(after, letters) if more else "",
            after=request.query.get("after", ""),
            days=self._desk.settings.archive_days,
            cause_text=lambda letter: cause_text(texts, letter),
            one_of=one_of,
        )

    async def _show(self, request: web.Request) -> web.Response:
        letter = await self._found(request)
        if letter is not None:
            return await self._one(request, letter)
        agent, letter_id, archived = request.match_info["agent"], request.match_info["id"], _archived(request)
        moved = "" if archived else await self._letters.archived_as(letter_id, agent)
        if moved:
            where = rendering.address("archive", agent, moved)
            return web.Response(status=303, headers={"Location": where})
        return await rendering.page(
            self._desk, request, "gone", status=404, archived=archived, letter_id=letter_id
        )

    async def _one(
        self, request: web.Request, letter: DeadLetter, *, edited: str | None = None, wrong: str = ""
    ) -> web.Response:
        archived = _archived(request)
        fields = await self._letters.original(letter, archived=archived)
        trace = letter.traceparent[3:35]
        return await rendering.page(
            self._desk,
            request,
            "letter",
            status=400 if wrong else 200,
            archived=archived,
            letter=letter,
            fields=[(_text(name), _text(value)) for name, value in _pairs(fields)],
            data=editing.data_of(fields) if edited is None else edited,
            wrong=wrong,
            origin=editing.origin_of(fields),
            successor=await editing.successor_of(self._desk.redis, letter) if archived else "",
            trace=trace,
            trace_link=self._desk.trace_link(trace),
            cause=cause_text(request[VISIT].texts, letter),
            one=one_of(letter),
            archived_at=archived_at,
            days=self._desk.settings.archive_days,
        )

    async def _letter(self, request: web.Request) -> DeadLetter:
        letter = await self._found(request)
        if letter is None:
            raise RefusedError("error.no_letter", 404)
        return letter

    async def _found(self, request: web.Request) -> DeadLetter | None:
        agent, letter_id = request.match_info["agent"], exports.entry_id(request.match_info["id"])
        if agent not in topology.CONSUMERS:
            raise RefusedError("error.no_page", 404)
        return await self._letters.get(letter_id, agent=agent, archived=_archived(request))

    async def _edit(self, request: web.Request) -> web.Response:
        letter = await self._letter(request)
        data = (await form(request)).get("data", "")
        try:
            result = await editing.replay_edited(
                self._desk.redis, self._letters, letter, data, request[VISIT].person
            )
        except InvalidEditError as error:
            return await self._one(request, letter, edited=data, wrong=str(error))
        if result.outcome == "gone":
            raise RefusedError("error.no_letter", 404)
        if result.outcome == "refused":
            return await self._one(request, letter, edited=data, wrong=result.message)
        where = rendering.address("photos", letter.photo_id) if letter.photo_id else "/activity"
        return web.Response(status=303, headers={"Location": where})

    async def _export(self, request: web.Request) -> web.StreamResponse:
        archived, wanted = _archived(request), self._filter(request)

        async def rows() -> AsyncIterator[Sequence[object]]:
            async for letter in self._letters.find(wanted, archived=archived):
                yield [getattr(letter, name) for name in _COLUMNS]

        return await exports.send(request, "archive" if archived else "dead-letters", _COLUMNS, rows())


def one_of(letter: DeadLetter) -> dict[str, object]:
    """Return the query of a filter that means this letter alone."""
    return {"agent": letter.agent, "id": letter.id}


def _bounds(text: str) -> Bounds:
    """Return where the page before this one ended. Raises RefusedError."""
    try:
        bounds = msgspec.json.decode(text, type=dict[str, str]) if text else {}
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise RefusedError("error.address") from None
    if not all(bounds.values()):
        raise RefusedError("error.address")
    return {place: exports.entry_id(last) for place, last in bounds.items()}


def _after(before: Bounds, letters: Sequence[DeadLetter]) -> str:
    """Return where this page ends, for the address of the next one."""
    seen = {place_of(letter.agent, keys.Keys(letter.lane)): letter.id for letter in letters}
    return msgspec.json.encode({**before, **seen}).decode()


def _archived(request: web.Request) -> bool:
    return request.path.startswith("/archive")


def _pairs(fields: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(fields[::2], fields[1::2], strict=False))


def _text(raw: bytes) -> str:
    """Return bytes for people: what is no UTF-8 as escapes, without the secrets that addresses carry."""
    text = scrub(raw[:_SHOWN].decode("utf-8", "backslashreplace"))
    return f"{text}… ({len(raw)} bytes)" if len(raw) > _SHOWN else text

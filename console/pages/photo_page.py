"""The page of one photo, with its way, its fields and where it is; and the search that leads there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web
from obstore.exceptions import BaseError as StoreError

from console.errors import CommandError
from console.pages import rendering
from console.pages.dead_page import one_of
from console.pages.desk import VISIT
from console.pages.filters import cause_text, query_of
from console.pages.guard import RefusedError, Route
from events import identities, topology
from events.identities import InvalidIdError, PhotoId, SessionId
from shared.delivery.photo_record import AgentPart
from shared.operations import photos
from shared.operations.dead_letters import DeadFilter, archived_at
from shared.operations.search import Search
from shared.photo_store import SCHEME, BlobMissingError
from shared.reports.cards import undecided
from shared.reports.photo_report import photo_key, read_photo_report
from shared.reports.totals import is_undescribed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from console.pages.desk import Desk
    from console.pages.texts import Texts
    from events.types import NeedsPerson
    from shared.delivery.dead_letter import DeadLetter
    from shared.delivery.photo_record import PhotoRecord
    from shared.reports.photo_report import PhotoReport

_PREVIEW: Final = re.compile(r"store:[\\/]*previews[\\/]+[\w./-]{64,200}", re.ASCII)
_JPEG: Final = b"\xff\xd8\xff"
_WIDTH: Final = 1000.0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One agent in the time line; positions are thousandths of the photo's time."""

    agent: str
    part: AgentPart | None
    wait: float = 0.0
    """Seconds between the agent before and this one."""
    wait_at: float = 0.0
    work_at: float = 0.0
    work_length: float = 0.0


class PhotoPage:
    """Shows a photo, serves its preview, and finds photos."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Return the requests of these pages."""
        return [
            Route("GET", "/photos/{id}", "viewer", self._show),
            Route("GET", "/photos/{id}/preview", "viewer", self._preview),
            Route("GET", "/search", "viewer", self._search),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        photo_id = _id(request)
        record = await photos.show(self._desk.redis, photo_id, lanes=self._desk.settings.lanes)
        letters = await self._letters(photo_id)
        archived = await self._archived(photo_id, record, letters)
        if record is None and not letters and not archived:
            hours = f"{self._desk.settings.photo_record_hours:g}"
            raise RefusedError("error.no_photo", 404, hours=hours)
        report = await self._report(record)
        about = record or (letters or archived)[-1]
        trace = record.trace_id if record else (letters or archived)[-1].traceparent[3:35]
        texts = request[VISIT].texts
        return await rendering.page(
            self._desk,
            request,
            "photo",
            photo_id=photo_id,
            record=record,
            name=about.file_name or photo_id,
            session=about.session_id or "",
            rows=timeline(record.parts if record else ()),
            need_text=lambda need: need_text(texts, need),
            letters=[(letter, cause_text(texts, letter)) for letter in letters],
            archived=[(letter, cause_text(texts, letter)) for letter in archived],
            archived_at=archived_at,
            days=self._desk.settings.archive_days,
            one_of=one_of,
            report=report,
            undescribed=report is not None and is_undescribed(report),
            undecided=undecided(report) if report is not None else [],
            has_preview=bool(await self._preview_ref(letters, archived, report)),
            trace=trace,
            trace_link=self._desk.trace_link(trace),
        )

    async def _letters(self, photo_id: str) -> list[DeadLetter]:
        """Return the newest dead letters of a photo; the counts by cause keep this from reading all."""
        groups = await self._desk.bulk.letters.groups(DeadFilter(photo=photo_id))
        letters = [letter for group in groups for letter in group.newest]
        return sorted(letters, key=lambda letter: letter.failed_at)

    async def _archived(
        self, photo_id: str, record: PhotoRecord | None, letters: Sequence[DeadLetter]
    ) -> list[DeadLetter]:
        """Return the letter in the archive that was discarded last of a photo that went no further."""
        if letters or (record is not None and record.status != "dead"):
            return []
        wanted = DeadFilter(photo=photo_id)
        found = [
            one async for one in self._desk.bulk.letters.find(wanted, archived=True) if not one.edited_as
        ]
        return sorted(found, key=archived_at)[-1:]

    async def _report(self, record: PhotoRecord | None) -> PhotoReport | None:
        if record is None:
            return None
        session = SessionId(record.session_id) if record.session_id else None
        try:
            key = photo_key(session, PhotoId(record.photo_id))
            return await read_photo_report(self._desk.store, SCHEME + key)
        except (BlobMissingError, StoreError, CommandError, OSError, msgspec.MsgspecError):
            # the record is what the page is about; what the store has is an addition
            return None

    async def _preview_ref(
        self, letters: Sequence[DeadLetter], archived: Sequence[DeadLetter], report: PhotoReport | None
    ) -> str:
        if report is not None:
            return report.preview_ref
        for letter in reversed(letters or archived):
            fields = await self._desk.bulk.letters.original(letter, archived=not letters)
            for field in fields:
                if found := _PREVIEW.search(field.decode("utf-8", "replace")):
                    return found.group().replace("\\", "")
        return ""

    async def _preview(self, request: web.Request) -> web.Response:
        photo_id = _id(request)
        record = await photos.show(self._desk.redis, photo_id, lanes=self._desk.settings.lanes)
        report = await self._report(record)
        letters = await self._letters(photo_id) if report is None else []
        archived = await self._archived(photo_id, record, letters) if report is None else []
        reference = await self._preview_ref(letters, archived, report)
        try:
            picture = await self._desk.store.get(reference) if reference else b""
        except (BlobMissingError, ValueError):
            picture = b""
        # a preview that we made is a JPEG; anything else is not served as a picture
        if not picture.startswith(_JPEG):
            raise RefusedError("error.no_page", 404)
        return web.Response(
            body=picture, content_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"}
        )

    async def _search(self, request: web.Request) -> web.Response:
        text = request.query.get("q", "").strip()[:500]
        desk = self._desk
        found = await Search(desk.redis, desk.bulk.letters, lanes=desk.settings.lanes).find(text)
        if len(found.photos) == 1 and not found.session and not found.sessions:
            where = rendering.address("photos", found.photos[0].photo_id)
            return web.Response(status=303, headers={"Location": where})
        one_session = len(found.sessions) == 1 and not found.letters
        only = found.session or (found.sessions[0] if one_session else "")
        if only and not found.photos:
            return web.Response(status=303, headers={"Location": rendering.address("sessions", only)})
        return await rendering.page(
            self._desk,
            request,
            "search",
            text=text,
            found=found,
            letters_query=query_of(found.letters_filter),
            hours=f"{self._desk.settings.photo_record_hours:g}",
        )


def need_text(texts: Texts, need: NeedsPerson) -> str:
    """Return why a person has to look at a column.

    The report keeps a German sentence, and a code; a report of an older version has no code.
    """
    if texts.language == "de":
        return need.reason
    return texts(f"need.{need.code}" if texts.has(f"need.{need.code}") else "need.other")


def timeline(parts: Sequence[AgentPart]) -> list[Row]:
    """Return one row for each agent of the pipeline, with its wait and work on one common scale."""
    done = {part.agent: part for part in parts}
    ordered = [done[agent] for agent in topology.AGENTS if agent in done]
    begin = min((part.started for part in ordered), default=0.0)
    end = max((part.started + part.seconds for part in ordered), default=0.0)
    scale = _WIDTH / max(end - begin, 0.001)
    rows, before = [], begin
    for agent in topology.AGENTS:
        part = done.get(agent)
        if part is None:
            rows.append(Row(agent=agent, part=None))
            continue
        rows.append(
            Row(
                agent=agent,
                part=part,
                wait=max(0.0, part.started - before),
                wait_at=round((min(before, part.started) - begin) * scale, 1),
                work_at=round((part.started - begin) * scale, 1),
                work_length=round(max(part.seconds * scale, 3.0), 1),
            )
        )
        before = part.started + part.seconds
    return rows


def _id(request: web.Request) -> PhotoId:
    try:
        return identities.photo_id(request.match_info["id"])
    except InvalidIdError:
        raise RefusedError("error.no_page", 404) from None

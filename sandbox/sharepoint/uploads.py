"""Upload sessions: fragments in order, the ranges still expected, and the answers to what goes wrong.

Source: "driveItem: createUploadSession". A fragment is a multiple of 320 KiB (checked in strict mode; the
service itself only fails sooner or later) and less than 60 MiB; the total never changes; a session that was
finished, cancelled or has expired is gone (404), and the upload begins again from 0.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sandbox.sharepoint import names
from sandbox.sharepoint.addressing import ItemTarget, resolve
from sandbox.sharepoint.contents import describe
from sandbox.sharepoint.errors import GraphError, being_uploaded, invalid, name_taken, not_found
from sandbox.sharepoint.faults import STRICT_SHARE_DYING_SESSION
from sandbox.sharepoint.items import check_conditions
from sandbox.sharepoint.model import ConflictBehavior, Item, JsonObject, UploadSession, timestamp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sandbox.sharepoint.faults import Faults
    from sandbox.sharepoint.items import Items
    from sandbox.sharepoint.store import Store

ALIGNMENT: Final = 327_680
"""Bytes; every fragment but the last is a multiple of it."""
MAX_FRAGMENT: Final = 60 * 1024 * 1024
MAX_FILE: Final = 250 * 1024**3
_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")


@dataclass(frozen=True, slots=True)
class Finished:
    """The file that a session became; `created`: a new item, else the bytes of one were replaced."""

    item: Item
    created: bool


class Uploads:
    """All upload sessions."""

    def __init__(self, store: Store, items: Items, faults: Faults, *, lifetime: float) -> None:
        """`lifetime`: seconds without a fragment after which a session expires."""
        self._store = store
        self._items = items
        self._faults = faults
        self._lifetime = lifetime
        self._locks: dict[str, asyncio.Lock] = {}

    def create(
        self,
        target: ItemTarget,
        *,
        conflict: ConflictBehavior,
        defer_commit: bool,
        headers: Mapping[str, str],
        request_id: str,
    ) -> UploadSession:
        """Open a session. Raises GraphError: 409 name taken, 412 condition, 400 name."""
        self.expire()
        check_conditions(target.item, headers)
        if target.item is not None and (target.item.is_folder or conflict == "fail"):
            raise name_taken()
        if target.item is None:
            names.check_name(target.missing[-1])
        name = target.item.name if target.item else "/".join(target.missing)
        if target.record.settings.one_session_per_name and self._is_open(target, name):
            raise being_uploaded(replaces=target.item is not None)
        now = time.time()
        dies = self._faults.chance(STRICT_SHARE_DYING_SESSION) and self._faults.spare(f"session {name}")
        session = UploadSession(
            id=uuid.uuid4().hex,
            list_id=target.record.id,
            parent_id=target.parent.id,
            name=name,
            replaces=target.item.id if target.item else None,
            conflict=conflict,
            defer_commit=defer_commit,
            created=now,
            expires=now + self._lifetime,
            dies_at=self._faults.between(0, 2 * ALIGNMENT) if dies else None,
        )
        self._store.save_session(session)
        self._note(session, "session_created", request_id=request_id)
        return session

    def _is_open(self, target: ItemTarget, name: str) -> bool:
        """Return whether a session for that name is open."""
        return any(
            session.parent_id == target.parent.id and session.name.casefold() == name.casefold()
            for session in self._store.sessions.values()
        )

    def get(self, session_id: str) -> UploadSession:
        """A session that is alive. Raises GraphError 404."""
        self.expire()
        session = self._store.sessions.get(session_id)
        if session is None:
            raise not_found("The upload session was not found", "uploadSessionNotFound")
        return session

    def cancel(self, session_id: str, *, request_id: str) -> None:
        """End a session without a file. Raises GraphError 404."""
        session = self.get(session_id)
        self._drop(session, "session_cancelled", request_id=request_id)

    def expire(self, *, all_of_them: bool = False) -> int:
        """Forget the sessions whose time is over; how many."""
        now = time.time()
        over = [session for session in self._store.sessions.values() if all_of_them or session.expires <= now]
        for session in over:
            self._drop(session, "session_expired")
        return len(over)

    def status(self, session: UploadSession) -> JsonObject:
        """Make the answer to a fragment and to a GET: when the session ends, and which bytes are missing."""
        complete = session.total is not None and session.received >= session.total
        return {
            "expirationDateTime": timestamp(session.expires),
            "nextExpectedRanges": [] if complete else [f"{session.received}-"],
        }

    async def receive(
        self, session_id: str, headers: Mapping[str, str], body: AsyncIterator[bytes], *, request_id: str
    ) -> UploadSession | Finished:
        """Take a fragment; the session as it is then, or the file once it was the last one."""
        async with self._locks.setdefault(session_id, asyncio.Lock()):
            session = self.get(session_id)
            start, end, total = self._check(session, headers)
            length = end - start + 1
            await self._append(session, body, length)
            self.get(session_id)  # cancelled or expired while the bytes came in?
            session = replace(session, received=end + 1, total=total, expires=time.time() + self._lifetime)
            self._store.save_session(session)
            if session.dies_at is not None and session.received > session.dies_at and end + 1 < total:
                self._drop(session, "session_expired")
                return session
            if end + 1 < total or session.defer_commit:
                return session
            return await self._finish(session, request_id)

    async def commit(self, session_id: str, *, request_id: str) -> Finished:
        """Make the file of a session whose bytes are all there (``deferCommit``, or after a conflict)."""
        async with self._locks.setdefault(session_id, asyncio.Lock()):
            session = self.get(session_id)
            if session.total is None or session.received < session.total:
                raise invalid("The upload session is incomplete.", "uploadSessionIncomplete")
            return await self._finish(session, request_id)

    def _check(self, session: UploadSession, headers: Mapping[str, str]) -> tuple[int, int, int]:
        """First byte, last byte and total of a fragment. Raises GraphError 400, 413 or 416."""
        found = _RANGE.fullmatch(headers.get("Content-Range", ""))
        if not found:
            raise invalid("The Content-Range header is missing or malformed.")
        start, end, total = (int(part) for part in found.groups())
        length = end - start + 1
        if length < 1 or end >= total:
            raise _range_error("The range is not within the file.", None)
        if total > MAX_FILE:
            raise GraphError(413, "invalidRequest", "Max file size exceeded", "maxFileSizeExceeded")
        if length >= MAX_FRAGMENT:
            raise GraphError(413, "invalidRequest", "Fragment too large", "maxFragmentLengthExceeded")
        declared = headers.get("Content-Length")
        if declared is not None and declared != str(length):
            raise _range_error("Content-Length is not the length of the range.", "fragmentLengthMismatch")
        if session.total not in (None, total):
            raise invalid(
                f"The upload session is for {session.total} bytes in total, the fragment says {total}."
            )
        if start < session.received:
            raise _range_error("The fragment was received already.", "fragmentOverlap")
        if start > session.received:
            raise _range_error("The fragment is not the next one expected.", "fragmentOutOfOrder")
        if self._faults.strict and end + 1 < total and length % ALIGNMENT:
            raise invalid(
                f"The fragment's length is not a multiple of {ALIGNMENT} bytes.", "fragmentLengthMismatch"
            )
        return start, end, total

    async def _append(self, session: UploadSession, body: AsyncIterator[bytes], length: int) -> None:
        """Write a fragment behind the bytes that are there. What is not whole does not count."""
        part = self._store.part(session.id)
        part.touch()
        with part.open("r+b") as file:
            file.truncate(session.received)
            file.seek(session.received)
            written = 0
            async for piece in body:
                written += len(piece)
                if written <= length:
                    file.write(piece)
        if written != length:
            raise _range_error("The body is not as long as the range.", "fragmentLengthMismatch")

    async def _finish(self, session: UploadSession, request_id: str) -> Finished:
        part = self._store.part(session.id)
        content = await asyncio.to_thread(describe, part, session.name)
        target = self._target(session)
        item, created = self._items.put(
            target,
            content,
            part,
            conflict=session.conflict,
            headers={},
            request_id=request_id,
            session=session.id,
        )
        self._drop(session, "session_finished", item=item, request_id=request_id)
        return Finished(item, created)

    def _target(self, session: UploadSession) -> ItemTarget:
        """Where the file goes, as things are now."""
        item = self._store.items.get(session.replaces or "")
        if item is not None and not item.deleted:
            path = f"items/{item.id}"
        else:
            path = f"items/{session.parent_id}:/{session.name}"
        record = self._store.lists[session.list_id]
        target = resolve(self._store, f"sites/root:/sites/Bau:/lists/{record.id}/drive/{path}").target
        if not isinstance(target, ItemTarget):
            raise not_found()
        return target

    def _drop(
        self,
        session: UploadSession,
        effect: str,
        *,
        item: Item | None = None,
        request_id: str | None = None,
    ) -> None:
        self._store.drop_session(session.id)
        self._locks.pop(session.id, None)
        self._note(session, effect, item=item, request_id=request_id)

    def _note(
        self,
        session: UploadSession,
        effect: str,
        *,
        item: Item | None = None,
        request_id: str | None = None,
    ) -> None:
        self._store.note(
            self._store.effect(
                effect,
                by="service" if effect == "session_expired" else "app",
                session=session.id,
                library=self._store.lists[session.list_id].display_name,
                name=session.name,
                item_id=item.id if item else session.replaces,
                list_item_id=str(item.number) if item else None,
                request_id=request_id,
            )
        )


def _range_error(message: str, inner: str | None) -> GraphError:
    return GraphError(416, "invalidRange", message, inner)

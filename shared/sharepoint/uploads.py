"""Uploads bytes to a library: one PUT for a small file, an upload session in chunks for a large one.

Both are all or nothing: the file is there with all its bytes, or not at all. After a lost chunk a session
continues where it was; the rules are those of learn.microsoft.com, "driveItem: createUploadSession".
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec

from shared.retry.errors import HttpStatusError, PostponeError, TransientError
from shared.sharepoint.answers import GraphError, is_being_uploaded
from shared.sharepoint.client import segment
from shared.sharepoint.items import as_item
from shared.sharepoint.open_sessions import OpenSession, OpenSessions
from shared.sharepoint.pacing import LONGEST_WAIT
from shared.sharepoint.wire import DriveItem, UploadSession, UploadStatus

if TYPE_CHECKING:
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.items import Item

SIMPLE_LIMIT: Final = 10 * 1024 * 1024
"""Bytes up to which one PUT is used; Graph would take 250 MB, but a lost PUT starts from the first byte
again."""
CHUNK: Final = 16 * 327_680
"""Bytes per chunk: Graph requires multiples of 327,680, and advises 5 to 10 MiB."""
_RECOVERIES: Final = 4
"""Failures in a row, without a byte of progress, after which a session is abandoned."""
_RESTARTS: Final = 2
_SILENCE: Final = 60.0
"""Seconds without a chunk after which another worker's session may be continued: a worker sends one in less,
and one that is slower than that only shares the session."""
_MODIFIED: Final = "resourceModified"
"""The code of a 409 that is not about the name (onedrive-api-docs issue 1707)."""
_RESERVED: Final = 300.0
"""Seconds until a name is tried again that an unknown session keeps. Such a session expires by itself."""


class NameTakenError(Exception):
    """Raised when a file of that name exists already: somebody else stored it a moment ago."""


class ItemChangedError(Exception):
    """Raised when the item has changed since it was read. Read it again, then decide again."""


class _SessionGoneError(Exception):
    """Raised when the upload session does not exist any more."""


class Uploader:
    """Uploads through one client.

    `sessions`: where open sessions are remembered; without, only this process continues them. `backoff`:
    seconds before the first resumption; doubles with each.
    """

    def __init__(
        self,
        client: GraphClient,
        *,
        sessions: OpenSessions | None = None,
        simple_limit: int = SIMPLE_LIMIT,
        chunk: int = CHUNK,
        backoff: float = 0.5,
    ) -> None:
        if chunk % 327_680:
            raise ValueError(f"a chunk has a multiple of 327680 bytes, not {chunk}")
        self._client = client
        self._sessions = sessions
        self._owner = uuid.uuid4().hex
        self._sending: set[str] = set()
        self._simple_limit = simple_limit
        self._chunk = chunk
        self._backoff = backoff

    async def create(self, drive_id: str, name: str, data: bytes, media_type: str) -> Item:
        """Store a new file at the top of a library.

        Raises NameTakenError, ItemChangedError if SharePoint says that something else changed meanwhile,
        PostponeError while another upload keeps the name, and what the client raises.
        """
        place = f"/drives/{segment(drive_id)}/root:/{segment(name)}:"
        try:
            if len(data) <= self._simple_limit:
                return await self._put(place + "/content", data, media_type, name, behaviour="fail")
            return await self._in_chunks(place, data, name, behaviour="fail")
        except GraphError as error:
            _check_reserved(error)
            if error.status in (409, 412) and _MODIFIED in error.codes:
                raise ItemChangedError(str(error)) from error
            if error.status == 409:
                raise NameTakenError(str(error)) from error
            raise

    async def replace(self, drive_id: str, item: Item, data: bytes, media_type: str) -> Item:
        """Replace the bytes of a file if it is still as it was read. Raises ItemChangedError if not."""
        place = f"/drives/{segment(drive_id)}/items/{segment(item.item_id)}"
        try:
            if len(data) <= self._simple_limit:
                return await self._put(
                    place + "/content", data, media_type, item.name, behaviour="replace", etag=item.etag
                )
            return await self._in_chunks(place, data, item.name, behaviour="replace", etag=item.etag)
        except GraphError as error:
            _check_reserved(error)
            if error.status in (404, 409, 412):
                raise ItemChangedError(str(error)) from error
            raise

    async def _put(
        self, path: str, data: bytes, media_type: str, name: str, *, behaviour: str, etag: str = ""
    ) -> Item:
        doing = f"uploading {name}"
        headers = {"Content-Type": media_type}
        if etag:
            headers["If-Match"] = etag
        answer = await self._client.send(
            "PUT",
            path,
            doing=doing,
            params={"@microsoft.graph.conflictBehavior": behaviour},
            data=data,
            headers=headers,
        )
        return as_item(answer.decode(DriveItem, doing))

    async def rehearse(self, drive_id: str) -> None:
        """Begin an upload and cancel it. Raises what an upload would raise, and leaves no file."""
        doing = "beginning an upload, to see whether that is allowed"
        await self._rehearse(drive_id, f"erni-doctor-{uuid.uuid4()}.jpg", doing)

    async def is_taken(self, drive_id: str, name: str) -> bool:
        """Return whether the top of a library holds a file of that name, even one that the app may not see.

        An upload is begun under that name and cancelled. Raises what an upload would raise.
        """
        try:
            await self._rehearse(drive_id, name, f"looking whether {name} is taken")
        except GraphError as error:
            if error.status == 409:
                return True
            raise
        return False

    async def _rehearse(self, drive_id: str, name: str, doing: str) -> None:
        answer = await self._client.send(
            "POST",
            f"/drives/{segment(drive_id)}/root:/{segment(name)}:/createUploadSession",
            doing=doing,
            json={"item": {"@microsoft.graph.conflictBehavior": "fail", "name": name}},
        )
        await self._drop(answer.decode(UploadSession, doing).upload_url, doing)

    async def _in_chunks(self, place: str, data: bytes, name: str, *, behaviour: str, etag: str = "") -> Item:
        doing = f"uploading {name} in chunks"
        known = OpenSessions.name(place, data)
        if known in self._sending:
            raise PostponeError(f"{doing}: another delivery of the same picture is sending it", _SILENCE)
        self._sending.add(known)
        try:
            for _ in range(_RESTARTS + 1):
                session = await self._continued(known, doing)
                position = 0
                try:
                    if session is None:
                        session = await self._begin(place, len(data), name, behaviour=behaviour, etag=etag)
                    else:
                        position = await self._wanted(session.url, doing, len(data), 0)
                    item = await self._send_all(session, known, data, doing, position)
                except _SessionGoneError:
                    # Expired, or its last answer was lost and the file is there: then the next session is
                    # refused with 409 or 412, and the caller looks.
                    await self._forget(known)
                    continue
                except (GraphError, aiohttp.ClientError, OSError, TransientError) as error:
                    if session is not None and (self._sessions is None or not _may_continue(error)):
                        await self._drop(session.url, doing)
                        await self._forget(known)
                    raise
                await self._forget(known)
                return item
        finally:
            self._sending.discard(known)
        raise TransientError(f"{doing}: SharePoint lost the upload session {_RESTARTS + 1} times")

    async def _continued(self, known: str, doing: str) -> OpenSession | None:
        """Return the session that was begun before; None if there is none.

        Raises PostponeError while another worker sends to it.
        """
        session = await self._sessions.get(known) if self._sessions else None
        if self._sessions is None or session is None or session.owner == self._owner:
            return session
        silent = self._sessions.now() - session.seen
        if silent < _SILENCE:
            raise PostponeError(f"{doing}: another worker is sending the same picture", _SILENCE - silent)
        return session

    async def _begin(self, place: str, size: int, name: str, *, behaviour: str, etag: str) -> OpenSession:
        doing = f"uploading {name} in chunks"
        answer = await self._client.send(
            "POST",
            place + "/createUploadSession",
            doing=doing,
            json={
                "item": {
                    "@microsoft.graph.conflictBehavior": behaviour,
                    "name": name,
                    "fileSize": size,
                },
                "deferCommit": False,
            },
            headers={"If-Match": etag} if etag else None,
        )
        made = answer.decode(UploadSession, doing)
        return OpenSession(url=made.upload_url, owner=self._owner, seen=0, expires=made.expiration_date_time)

    async def _keep(self, known: str, session: OpenSession, expires: str = "") -> None:
        """Remember that bytes of the session arrive now."""
        if self._sessions is not None:
            kept = msgspec.structs.replace(
                session,
                owner=self._owner,
                seen=self._sessions.now(),
                expires=expires or session.expires,
            )
            await self._sessions.keep(known, kept)

    async def _forget(self, known: str) -> None:
        if self._sessions is not None:
            await self._sessions.forget(known)

    async def _send_all(
        self, session: OpenSession, known: str, data: bytes, doing: str, position: int
    ) -> Item:
        """Send all chunks from `position` on, resumed where needed.

        Raises _SessionGoneError if a new session is needed.
        """
        url, failures = session.url, 0
        await self._keep(known, session)
        while True:
            try:
                answer = await self._client.plain(
                    "PUT",
                    url,
                    doing=doing,
                    data=data[position : position + self._chunk],
                    headers={
                        "Content-Range": f"bytes {position}-"
                        f"{min(position + self._chunk, len(data)) - 1}/{len(data)}"
                    },
                    accept=(404, 416),
                )
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError, GraphError) as error:
                failures += 1
                wait = _resumption(error, failures, self._backoff)
                if wait is None:
                    raise
                await asyncio.sleep(wait)
                position = await self._wanted(url, doing, len(data), position)
                continue
            if answer.status in (200, 201):
                return as_item(answer.decode(DriveItem, doing))
            if answer.status == 404:
                raise _SessionGoneError
            if answer.status == 416:
                # A chunk that arrived although its answer was lost.
                failures += 1
                if failures > _RECOVERIES:
                    raise TransientError(f"{doing}: SharePoint keeps refusing byte {position} (416)")
                position = await self._wanted(url, doing, len(data), position)
                continue
            status = answer.decode(UploadStatus, doing)
            await self._keep(known, session, status.expiration_date_time)
            wanted = _next_byte(status, position + self._chunk)
            failures = 0 if wanted > position else failures + 1
            if failures > _RECOVERIES or wanted >= len(data):
                raise TransientError(f"{doing}: SharePoint wants byte {wanted} of {len(data)}")
            position = wanted

    async def _wanted(self, url: str, doing: str, size: int, position: int) -> int:
        """Ask the session which byte comes next."""
        try:
            answer = await self._client.plain("GET", url, doing=doing, accept=(404,))
        except (aiohttp.ClientConnectionError, OSError, GraphError):
            # Still no answer. The next chunk finds out, and counts as the next failure.
            return position
        if answer.status == 404:
            raise _SessionGoneError
        wanted = _next_byte(answer.decode(UploadStatus, doing), size)
        if wanted >= size:
            # All bytes have arrived, and the answer to the last chunk was lost.
            raise _SessionGoneError
        return wanted

    async def _drop(self, url: str, doing: str) -> None:
        """Cancel the session. If that fails, it expires by itself."""
        with contextlib.suppress(HttpStatusError, aiohttp.ClientError, OSError):
            await self._client.plain("DELETE", url, doing=doing)


def _check_reserved(error: GraphError) -> None:
    """Raise PostponeError if a 409 says that an unknown upload session keeps the name."""
    if is_being_uploaded(error):
        raise PostponeError(
            f"{error}; an upload that was abandoned keeps the name until its session ends", _RESERVED
        ) from error


def _may_continue(error: Exception) -> bool:
    """Return whether the next attempt may continue the session after `error`."""
    if isinstance(error, GraphError):
        return error.status == 429 or error.status >= 500
    return isinstance(error, aiohttp.ClientError | OSError)


def _resumption(error: Exception, failures: int, backoff: float) -> float | None:
    """Return the seconds to wait before the session continues after `error`; None if it cannot continue."""
    if failures > _RECOVERIES:
        return None
    wait = backoff * 2 ** (failures - 1)
    if isinstance(error, GraphError):
        if error.status != 429 and error.status < 500:
            return None
        wait = max(wait, error.retry_after or 0.0)
    return wait if wait <= LONGEST_WAIT else None


def _next_byte(status: UploadStatus, otherwise: int) -> int:
    """Read the first byte still wanted from ``["26-", …]``; `otherwise` if the session does not report it."""
    for text in status.next_expected_ranges:
        start = text.partition("-")[0].strip()
        if start.isdigit():
            return int(start)
    return otherwise

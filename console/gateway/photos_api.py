"""`POST /v1/photos`: the bytes of a photo, as the body or as a form; into the store first, then published."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import BodyPartReader, ClientError, web
from obstore.exceptions import BaseError as StoreError

from console.errors import CommandError
from console.explain import store_trouble
from console.gateway import bodies, problems
from console.gateway.access import PUBLISHERS
from console.gateway.events_api import accepted_answer
from console.gateway.observing import trace_fields
from console.gateway.problems import Problem, ProblemError
from console.gateway.publishing import Refused
from console.system import require_same_store
from events import identities
from events.identities import InvalidIdError, SessionId
from events.types import Hints, PhotoSubmitted, Target
from shared.fetching.temporary import TemporaryFile, TemporaryFiles
from shared.photos import kinds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp import MultipartReader
    from redis.asyncio import Redis

    from console.gateway.access import Caller, Door
    from console.gateway.publishing import Intake
    from shared.photo_store import BlobStore
    from shared.settings import Settings

UPLOAD_SECONDS: Final = 120.0
STORE_CHECK_SECONDS: Final = 60.0
_HINTS: Final = frozenset(Hints.__struct_fields__)
_TARGET: Final = frozenset(Target.__struct_fields__)
FIELDS: Final = ("photo_id", "session_id", "file_name", *sorted(_HINTS), *sorted(_TARGET))
"""What may stand beside the bytes: fields of the form, or parameters of the address."""
_FORM_BYTES: Final = 65_536
"""Bytes of all fields of a form together, the photo aside."""
_HEAD_BYTES: Final = 4_096


class _Upload(msgspec.Struct):
    """A photo that is being received."""

    file: TemporaryFile
    size: int = 0
    head: bytes = b""
    digest: str = ""
    fields: dict[str, str] = {}


class PhotosApi:
    """Handles uploads."""

    def __init__(
        self, redis: Redis, settings: Settings, door: Door, intake: Intake, store: Callable[[], BlobStore]
    ) -> None:
        self._redis = redis
        self._settings = settings
        self._door = door
        self._intake = intake
        self._store = store
        self._temporary = TemporaryFiles()
        self._being_stored: set[tuple[str, str]] = set()
        self._store_checked = -STORE_CHECK_SECONDS

    async def upload(self, request: web.Request) -> web.Response:
        """Store a photo and publish it. Raises Problem, and what redis-py raises."""
        caller = await self._door.admit(request, PUBLISHERS)
        if not caller.key.source:
            raise Problem(
                problems.SOURCE_NOT_ALLOWED,
                f"the key {caller.key.name} has no source, so nobody knows who submits the photo: make a key"
                " with `erni key add NAME --role … --source URN`",
            )
        chosen = _idempotency_key(request)
        if not chosen and caller.key.needs_idempotency_key:
            raise Problem(
                problems.IDEMPOTENCY_KEY_MISSING,
                f"the key {caller.key.name} was made for uploads with the header Idempotency-Key: send one"
                " for each photo",
            )
        bodies.refuse_encoding(request)
        limit = self._settings.max_photo_bytes
        bodies.refuse_length(request, limit + _FORM_BYTES * 2, self._remedy)
        mine = (caller.key.source, chosen)
        if chosen and mine in self._being_stored:
            raise Problem(
                problems.STILL_STORED,
                f"another request with the Idempotency-Key {chosen[:80]!r} is storing its photo",
                headers={"Retry-After": "1"},
            )
        self._being_stored.add(mine)
        try:
            return await self._store_and_publish(request, caller, chosen)
        finally:
            self._being_stored.discard(mine)

    @property
    def _remedy(self) -> str:
        return "make the photo smaller, or allow more with MAX_PHOTO_BYTES"

    async def _store_and_publish(self, request: web.Request, caller: Caller, chosen: str) -> web.Response:
        with self._temporary.file() as file:
            upload = _Upload(file=file)
            try:
                async with asyncio.timeout(UPLOAD_SECONDS):
                    await self._receive(request, upload)
            except TimeoutError:
                raise bodies.too_slow(UPLOAD_SECONDS) from None
            file.flush()
            _refuse_other_files(upload)
            event = _event(upload)
            event_id = chosen or f"{event.session_id or ''}/{event.photo_id}"
            try:
                around = trace_fields(request, is_one_photo=True)
                prepared, name = self._intake.prepared(caller.key.source, event, event_id, around)
            except Refused as refusal:
                raise Problem(refusal.kind, str(refusal), errors=[refusal.error]) from None
            await self._keep(upload)
        return accepted_answer(await self._intake.publish(caller.key.source, prepared, name))

    async def _receive(self, request: web.Request, upload: _Upload) -> None:
        """Write the photo into its file and read its fields."""
        digest = hashlib.sha256()
        for name, values in ((name, request.query.getall(name)) for name in request.query):
            if name != "access_token":
                _set_field(upload.fields, name, values[0] if len(values) == 1 else None)
        content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        parts = (
            _parts_of(request, upload.fields)
            if content_type == "multipart/form-data"
            else bodies.chunks(request)
        )
        async for chunk in parts:
            upload.size += len(chunk)
            if upload.size > self._settings.max_photo_bytes:
                raise bodies.too_large(self._settings.max_photo_bytes, self._remedy)
            if len(upload.head) < _HEAD_BYTES:
                upload.head += chunk[: _HEAD_BYTES - len(upload.head)]
            digest.update(chunk)
            upload.file.write(chunk)
        upload.digest = digest.hexdigest()

    async def _keep(self, upload: _Upload) -> None:
        """Put the photo into the store that the agents read. Raises Problem."""
        try:
            store = self._store()
            if time.monotonic() - self._store_checked > STORE_CHECK_SECONDS:
                await require_same_store(self._redis, self._settings, store)
                self._store_checked = time.monotonic()
            await store.put_file(f"originals/{upload.digest}", upload.file.path)
        except (CommandError, StoreError, OSError) as error:
            raise Problem(
                problems.STORE_AWAY, store_trouble(error, self._settings), headers={"Retry-After": "15"}
            ) from error


def _refuse_other_files(upload: _Upload) -> None:
    """Raise Problem for a file that no agent takes; its bytes count, not its name or Content-Type."""
    if not upload.size:
        raise Problem(
            problems.BAD_REQUEST, "there are no bytes: send the photo as the body, or as the form's photo"
        )
    if kinds.kind_of(upload.head) is None:
        raise Problem(
            problems.MEDIA_TYPE_UNKNOWN,
            f"the file is {kinds.describe(upload.head)}: send a JPEG, PNG, WebP or HEIC photo",
        )


def _event(upload: _Upload) -> PhotoSubmitted:
    """Return the event of an upload. Raises Problem."""
    fields = upload.fields
    source_url = f"store:originals/{upload.digest}"
    try:
        session = identities.session_id(fields["session_id"]) if fields.get("session_id") else None
        # as `erni publish` has it: two files of one content are two photos, the same file again is the same
        derived = identities.derived_photo_id(
            session, f"{source_url}#{fields.get('file_name', '')}".removesuffix("#")
        )
        photo = identities.photo_id(fields["photo_id"]) if fields.get("photo_id") else derived
    except InvalidIdError as error:
        raise Problem(problems.EVENT_REFUSED, str(error), errors=[ProblemError(detail=str(error))]) from None
    hints = {name: fields[name] for name in _HINTS if fields.get(name)}
    target = {name: fields[name] for name in _TARGET if fields.get(name)}
    return PhotoSubmitted(
        source_url=source_url,
        photo_id=photo,
        session_id=SessionId(session) if session else None,
        file_name=fields.get("file_name") or None,
        hints=Hints(**hints) if hints else None,
        target=Target(**target) if target else None,
    )


def _set_field(fields: dict[str, str], name: str, value: str | None) -> None:
    if name not in FIELDS:
        raise Problem(
            problems.BAD_REQUEST,
            f"there is no field {name[:40]!r}: the fields are {', '.join(FIELDS)} and photo",
        )
    if value is None or name in fields:
        raise Problem(problems.BAD_REQUEST, f"the field {name} is there twice: which one counts?")
    fields[name] = value


async def _parts_of(request: web.Request, fields: dict[str, str]) -> AsyncIterator[bytes]:
    """Yield the bytes of a form's photo; its other fields go into `fields`. Raises Problem."""
    seen = False
    room = _FORM_BYTES
    try:
        form: MultipartReader = await request.multipart()
        while (part := await form.next()) is not None:
            if not isinstance(part, BodyPartReader):
                raise Problem(
                    problems.BAD_REQUEST, "the form has a form inside: send its fields side by side"
                )
            if part.name != "photo":
                room -= await _read_field(part, fields, room)
                continue
            if seen:
                raise Problem(problems.BAD_REQUEST, "the form has two photos: send one request for each")
            seen = True
            # a name is text for people: the store has names of its own
            fields.setdefault("file_name", (part.filename or "").replace("\\", "/").rpartition("/")[2])
            while chunk := await part.read_chunk(1 << 16):
                yield chunk
    except (ValueError, ClientError, ConnectionError, AssertionError, web.HTTPException) as error:
        raise Problem(
            problems.BAD_REQUEST,
            "the form cannot be read as multipart/form-data (RFC 7578), or it ended too early: nothing was"
            " published",
            headers={"Connection": "close"},
        ) from error


async def _read_field(part: BodyPartReader, fields: dict[str, str], room: int) -> int:
    """Read a field beside the photo and return its size. Raises Problem past `room` bytes."""
    text = bytearray()
    while chunk := await part.read_chunk(1 << 12):
        text += chunk
        if len(text) > room:
            raise bodies.too_large(_FORM_BYTES, "shorten the fields beside the photo")
    if part.name == "file_name":
        # goes before the name of the file itself
        fields.pop("file_name", None)
    _set_field(fields, part.name or "", text.decode("utf-8"))
    return len(text)


def _idempotency_key(request: web.Request) -> str:
    """Return the header Idempotency-Key, with or without the quotes of a structured field; '' without it.

    https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header
    """
    value = request.headers.get("Idempotency-Key", "").strip()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return value

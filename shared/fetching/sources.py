"""Fetches a source's bytes into a temporary file: from the web, a folder, the store or a SharePoint library.

Every source has the same limits of bytes and time, and its bytes are hashed on the way.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import stat
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec

from events.identities import Sha256
from shared.fetching.temporary import TemporaryFiles
from shared.fetching.web import Web, about_host
from shared.photo_store import SCHEME
from shared.retry.errors import PermanentError, dependency
from shared.telemetry.redact import scrub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from typing import BinaryIO

    from aiohttp.abc import AbstractResolver

    from shared.fetching.temporary import TemporaryFile
    from shared.photo_store import BlobStore
    from shared.settings import Settings

    Download: TypeAlias = Callable[[str], AsyncGenerator[bytes, None]]
    """Streams the bytes of one ``sharepoint:`` address."""

_DEADLINE_SECONDS: Final = 60.0
_WEB: Final = ("http:", "https:")
_FILE_CHUNK: Final = 1 << 20
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO})


class FetchedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A source's bytes on this machine. The file is removed when the block that fetched it ends."""

    path: Path
    size: int
    """Bytes."""
    sha256: Sha256


class Sources:
    """Fetches photos from all kinds of sources. Open it before the first fetch: it holds HTTP connections."""

    def __init__(
        self,
        settings: Settings,
        blobs: BlobStore,
        *,
        sharepoint: Download,
        resolver: AbstractResolver | None = None,
        deadline: float | None = None,
    ) -> None:
        """`deadline`: seconds for one photo; by default 60, and less than HANDLE_TIMEOUT in any case."""
        self._temporary = TemporaryFiles()
        self._roots = settings.source_roots
        self._max_bytes = settings.max_photo_bytes
        self._blobs = blobs
        self._sharepoint = sharepoint
        self._web = Web(settings.source_hosts, max_bytes=settings.max_photo_bytes, resolver=resolver)
        # HANDLE_TIMEOUT would end in another attempt, and a source that trickles will trickle again.
        self._deadline = deadline or min(_DEADLINE_SECONDS, 0.8 * settings.handle_timeout)

    async def open(self) -> None:
        """Make the HTTP sessions. Raises SettingsError if TMPDIR is no folder to write to."""
        self._temporary.check()
        await self._web.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._web.close()

    @asynccontextmanager
    async def fetch(self, source_url: str, *, name: str | None = None) -> AsyncIterator[FetchedFile]:
        """Fetch the bytes of a source; the file exists as long as the block lasts. `name` is for sentences.

        Raises PermanentError for what is not allowed, not there, too large or too slow, HttpStatusError for
        a web answer other than 200; connection errors and those of this machine (a full disk) pass through.
        """
        with self._temporary.file() as file:
            size, sha256 = await self._fill(file, source_url, name)
            file.flush()
            yield FetchedFile(path=file.path, size=size, sha256=sha256)

    async def _fill(self, file: TemporaryFile, source_url: str, name: str | None) -> tuple[int, Sha256]:
        """Write the bytes into a file; their number and hash."""
        digest = hashlib.sha256()
        size = 0
        # the other addresses end in a name
        what = (
            f"{name} ({shown(source_url)})" if name and source_url.startswith(SCHEME) else shown(source_url)
        )
        try:
            async with (
                asyncio.timeout(self._deadline) as deadline,
                aclosing(self._chunks(source_url)) as chunks,
            ):
                async for chunk in chunks:
                    size += len(chunk)
                    if size > self._max_bytes:
                        raise PermanentError(
                            f"{what} has more than {self._max_bytes:,} bytes: make the photo"
                            " smaller, or allow more with MAX_PHOTO_BYTES"
                        )
                    digest.update(chunk)
                    file.write(chunk)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            if size == 0:
                silent = TimeoutError(f"{what} sent nothing in {self._deadline:g} s")
                if source_url.lower().startswith(_WEB):
                    with about_host(source_url):
                        raise silent from error
                raise silent from error
            raise PermanentError(
                f"{what} sent {size:,} bytes in {self._deadline:g} s and was not done: publish"
                " the photo from a faster source"
            ) from error
        return size, Sha256(digest.hexdigest())

    def _chunks(self, source_url: str) -> AsyncGenerator[bytes, None]:
        """The bytes of a source, in pieces. Raises PermanentError for a kind of source we don't know."""
        match source_url.partition(":")[0].lower():
            case "http" | "https":
                return self._web.stream(source_url)
            case "file":
                return _read(source_url, self._roots)
            case "store":
                return self._from_store(source_url)
            case "sharepoint":
                return self._sharepoint(source_url)
            case scheme:
                raise PermanentError(
                    f"a source whose address starts with {scheme[:20]!r} cannot be fetched:"
                    " publish an http:, https:, file:, store: or sharepoint: address"
                )

    async def _from_store(self, source_url: str) -> AsyncGenerator[bytes, None]:
        with dependency("store"):
            yield await self._blobs.get(source_url)


def shown(source_url: str) -> str:
    """Return a source's address for a sentence, without password, query and fragment."""
    return scrub(source_url)[:200]


def name_of(source_url: str) -> str | None:
    """Return the file name at the end of a source's address, if any. For people, never a path."""
    if source_url.startswith(SCHEME):
        return None
    path = re.sub(r"^\w+:(//[^/]*)?|[?#].*", "", source_url)
    return unquote(path).rsplit("/", 1)[-1][:255] or None


async def _read(source_url: str, roots: tuple[str, ...]) -> AsyncGenerator[bytes, None]:
    """The bytes of a ``file:`` source. Reading may block for long where a root is a network share."""
    file = await asyncio.to_thread(_open_below, source_url, roots)
    with file:
        while chunk := await asyncio.to_thread(file.read, _FILE_CHUNK):
            yield chunk


def _open_below(source_url: str, roots: tuple[str, ...]) -> BinaryIO:
    """Open a regular file below one of the roots. Raises PermanentError, also for a link that leads out."""
    path = _path_below(source_url, roots)
    try:
        # After `resolve` nothing on the way is a link; one put there since must not be followed. A pipe
        # without a writer would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NOT_THERE:
            what = "is not there: check the path, or publish it again"
        elif isinstance(error, PermissionError):
            what = "cannot be read by this process: check its rights"
        else:
            raise
        raise PermanentError(f"{shown(source_url)} {what}") from error
    status = os.fstat(descriptor)
    wrong = None
    if not stat.S_ISREG(status.st_mode):
        wrong = "is not a file: publish the photos in it one by one"
    elif status.st_nlink > 1:
        # its other name may be that of a file outside of the roots, which a link leads in
        wrong = "has several names (hard links): copy the photo to a file of its own"
    if wrong:
        os.close(descriptor)
        raise PermanentError(f"{shown(source_url)} {wrong}")
    return os.fdopen(descriptor, "rb")


def _path_below(source_url: str, roots: tuple[str, ...]) -> Path:
    """Return the path of a ``file:`` address. Raises PermanentError if it is not below one of the roots."""
    if not roots:
        raise PermanentError(
            "file: sources are off: name the folders they may be in with SOURCE_ROOTS, and start"
            " photo_fetcher again"
        )
    try:
        parts = urlsplit(source_url)
        path = Path(unquote(parts.path)).resolve()
        allowed = any(path.is_relative_to(Path(root).expanduser().resolve()) for root in roots)
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in _NOT_THERE:
            raise
        raise PermanentError(f"{shown(source_url)} is no path that can be followed: check it") from error
    if parts.netloc not in ("", "localhost"):
        raise PermanentError("a file: source names another machine: publish file:///folder/photo.jpg")
    if not allowed:
        raise PermanentError(
            f"{shown(source_url)} lies outside of the folders that SOURCE_ROOTS names: add its"
            " folder, and start photo_fetcher again"
        )
    return path

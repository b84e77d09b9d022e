"""Keeps blobs by content in the photo store (obstore: a folder, Azure, S3, GCS).

Keys are ours, made of content hashes, never of names from outside: ``originals/<sha256>``,
``previews/<sha256>….jpg``, ``facts/<sha256>.json``, ``vision/<sha256>-<key>.json``, ``reports/<session>/…``,
``schemas/<digest>.json``, ``sharepoint/…``.

Blobs may be removed by age (`shared.operations.retention`) while somebody writes the same ones again, and no
object store deletes on a condition. So a removal first writes a mark, ``removing/<content>``, then reads the
dates, and removes the mark when it has ended. A writer looks for the mark after its write, waits until it is
gone, and then looks for its blob. In any order one of the two sees the other, so a new blob stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

import obstore
from obstore.exceptions import AlreadyExistsError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.exceptions import BaseError as StoreError
from obstore.store import LocalStore, from_url

from events.identities import StoreUrl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from obstore import ObjectMeta
    from obstore.store import ObjectStore

SCHEME = "store:"
CONTENT: Final = re.compile(r"\b[0-9a-f]{64}\b")
"""A content's SHA-256 in a key."""
_REFRESH_AFTER: Final = timedelta(hours=12)
"""A blob put again is written again if it is older: less than the shortest retention, which is a day."""
_REMOVING: Final = "removing/"
_REMOVAL_SECONDS: Final = 5.0
_DEAD_SECONDS: Final = 15.0
"""A mark that stays for so long was left by a process that died: its removal has ended."""


class BlobMissingError(FileNotFoundError):
    """A reference points at a blob that is not in the store (its retention may be over)."""


class StoreUnhealthyError(OSError, StoreError):
    """The store does not work: it is full, away, or lets us not in. No photo is to blame for that.

    `errno` is the system's where it has one, else EIO: both count as trouble of this machine, so the entry is
    released and reading stops. The sentence says what to do.
    """

    def __str__(self) -> str:
        return str(self.args[1])


_SECRET: Final = re.compile(r"(?<=//)[^/@\s]+(?=@)|\?\S+")
"""What may be secret in an address: userinfo and query."""
_UNREADABLE: Final = re.compile(
    r'failed to parse "([^"]*)"|parse source url\. Url: (.*), Error: |service account file from (.*): '
)
"""A value of a variable that the store's client cannot use."""
_MISSING: Final = {
    "Account must be specified": "AZURE_STORAGE_ACCOUNT_NAME",
    "Missing AccessKeyId": "AWS_ACCESS_KEY_ID",
    "Missing SecretAccessKey": "AWS_SECRET_ACCESS_KEY",
}
"""By the words of the store's client (object_store, `azure/builder.rs` and `aws/builder.rs`)."""
_WRONG: Final = {
    "Invalid Access Key": (
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_ACCESS_KEY",
        "AZURE_STORAGE_MASTER_KEY",
    ),
    "service account file": (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
    ),
}
"""The variables that its words may be about."""
_PROVIDERS: Final = ("AWS_", "AZURE_", "GOOGLE_")
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")
_REMEDIES: Final = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "raise the quota or free some space there",
    errno.EROFS: "mount it for writing",
    errno.EACCES: "give this user the right to write there",
    errno.EPERM: "give this user the right to write there",
}


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn obstore's errors, which end in a dump of its structures, into one kind with a sentence.

    What is there already or not there is an answer, not an error, and passes.
    """
    try:
        yield
    except (AlreadyExistsError, NotFoundError):
        raise
    except StoreError as error:
        raise _unhealthy(error, url) from error


def _unhealthy(error: Exception, url: str) -> StoreUnhealthyError:
    where, text = _bare(url), str(error)
    number = int(found[1]) if (found := _OS_ERROR.search(text)) else 0
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) and not number:
        cause, remedy = "it does not let us in", "check its credentials and their rights"
    elif variable := next((name for words, name in _MISSING.items() if words in text), ""):
        cause, remedy = f"{variable} is missing", "set it"
    elif number and (variables := _wrong_variables(text)):
        cause, remedy = os.strerror(number).lower(), f"check {variables}"
    elif number:
        cause = os.strerror(number).lower()
        remedy = _REMEDIES.get(number, "check PHOTO_STORE_URL and its disk")
    else:
        cause = _SECRET.sub("…", (text.strip().splitlines() or [type(error).__name__])[0])[:200]
        remedy = f"check {_wrong_variables(text) or 'PHOTO_STORE_URL, its credentials and the way to it'}"
    free = _free_space(url) if number in (errno.ENOSPC, errno.EDQUOT) else ""
    return StoreUnhealthyError(
        number if number in _REMEDIES and number not in (errno.EACCES, errno.EPERM) else errno.EIO,
        f"the photo store {where} cannot be used ({cause}{free}): {remedy}. Photos wait meanwhile",
    )


def _wrong_variables(text: str) -> str:
    """Return the provider's variables that a sentence of the store's client is about; '' if it names none.

    The client reads AWS_*, AZURE_* and GOOGLE_* itself, and names the value but not the variable.
    """
    found = _UNREADABLE.search(text)
    values = [value for value in found.groups() if value is not None] if found else []
    about = [name for words, names in _WRONG.items() if words in text for name in names]
    names = [
        name
        for name in sorted(os.environ)
        if name.startswith(_PROVIDERS) and (os.environ[name] in values or (not values and name in about))
    ]
    return ", ".join(names)


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _free_space(url: str) -> str:
    """How much room a folder has; '' where the system does not say."""
    try:
        usage = shutil.disk_usage(url.removeprefix("file://"))
    except OSError:
        return ""
    return f"; {usage.free / 1e6:.1f} of {usage.total / 1e6:.1f} MB free"


def store_key(url: str) -> str:
    """The key of a ``store:`` URL. Raises ValueError for any other URL, and for one that leaves the store."""
    key = url.removeprefix(SCHEME).lstrip("/")
    if not url.startswith(SCHEME) or not key or any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"not a reference into the photo store: {url[:200]!r}; expected store:<key>")
    return key


class BlobStore:
    """Put, get, list and delete blobs. Writing is idempotent: a key made of a hash has one content."""

    def __init__(self, url: str) -> None:
        """Open the store at `url`: ``file:///folder``, a plain path, ``az://``, ``s3://`` or ``gs://``.

        Raises StoreUnhealthyError if its folder cannot be made or the address is none.
        """
        self.url = url
        try:
            self._store = _opened(url)
        except (OSError, ValueError, StoreError) as error:
            raise _unhealthy(error, url) from error

    async def put(self, key: str, data: bytes) -> StoreUrl:
        """Write a blob; if the key is there already, leave it. For keys made of the content's hash.

        An old one is written again, so that its date is the time of the last use.
        """
        return await self._keep(key, data)

    async def put_file(self, key: str, path: Path) -> StoreUrl:
        """Like `put`, streaming from a file."""
        return await self._keep(key, path)

    async def replace(self, key: str, data: bytes) -> StoreUrl:
        """Write a blob over what was there. For reports, whose key says what they are about."""
        with _explained(self.url):
            await obstore.put_async(self._store, key, data)
        return await self._outlasting_removals(key, data)

    async def _keep(self, key: str, data: bytes | Path) -> StoreUrl:
        try:
            with _explained(self.url):
                await obstore.put_async(self._store, key, data, mode="create")
        except AlreadyExistsError:
            written = await self._written(key)
            if written is None or datetime.now(UTC) - written > _REFRESH_AFTER:
                with _explained(self.url):
                    await obstore.put_async(self._store, key, data)
        return await self._outlasting_removals(key, data)

    async def _outlasting_removals(self, key: str, data: bytes | Path) -> StoreUrl:
        """Return once no removal that did not see this write can remove the blob."""
        mark, patience = _mark(key), time.monotonic() + _DEAD_SECONDS
        while await self._written(mark) is not None:
            if time.monotonic() > patience:
                await self.delete(SCHEME + mark)
            await asyncio.sleep(0.05)
        # in this order: a removal that began before our write may have ended before we looked for its mark
        if await self._written(key) is None:
            with _explained(self.url):
                await obstore.put_async(self._store, key, data)
        return StoreUrl(SCHEME + key)

    async def get(self, url: str) -> bytes:
        """Return the blob of a ``store:`` URL. Raises BlobMissingError."""
        key = store_key(url)
        try:
            with _explained(self.url):
                result = await obstore.get_async(self._store, key)
                return bytes(await result.bytes_async())
        except FileNotFoundError as error:
            raise BlobMissingError(
                f"the photo store has no {key} (retention over, its session forgotten, or another store?):"
                " publish the photo again"
            ) from error

    async def exists(self, url: str) -> bool:
        """Report whether the blob of a ``store:`` URL exists."""
        return await self._written(store_key(url)) is not None

    async def delete(self, url: str) -> None:
        """Remove a blob, if it exists."""
        try:
            with _explained(self.url):
                await obstore.delete_async(self._store, store_key(url))
        except FileNotFoundError:
            return

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        """All keys below a prefix."""
        async for meta in self._below(prefix):
            yield meta["path"]

    async def older(self, prefix: str, before: datetime) -> AsyncIterator[str]:
        """The keys below a prefix that were last written before that time, by the store's own clock."""
        async for meta in self._below(prefix):
            if meta["last_modified"] < before:
                yield meta["path"]

    async def _below(self, prefix: str) -> AsyncIterator[ObjectMeta]:
        listing = obstore.list(self._store, prefix).__aiter__()
        while True:
            with _explained(self.url):
                chunk = await anext(listing, None)
            if chunk is None:
                return
            for meta in chunk:
                yield meta

    async def expire(self, key: str, before: datetime, *, kept_by: Sequence[str] = ()) -> bool:
        """Remove a blob if neither it nor one of `kept_by` was written since `before`; report whether it did.

        Safe beside writers of the same content; not beside another call for it. Raises TimeoutError if the
        store is slow.
        """
        mark = _mark(key)
        try:
            async with asyncio.timeout(_REMOVAL_SECONDS):
                with _explained(self.url):
                    await obstore.put_async(self._store, mark, b"")
                dates = [await self._written(name) for name in (key, *kept_by)]
                if dates[0] is None or any(date is not None and date >= before for date in dates):
                    return False
                await self.delete(SCHEME + key)
                return True
        finally:
            with contextlib.suppress(OSError, StoreError):
                await self.delete(SCHEME + mark)

    async def clear_marks(self) -> None:
        """Remove the marks of removals whose process died."""
        async for mark in self.older(_REMOVING, datetime.now(UTC) - timedelta(seconds=_DEAD_SECONDS)):
            await self.delete(SCHEME + mark)

    async def _written(self, key: str) -> datetime | None:
        """Return when a blob was last written; None if there is none."""
        try:
            with _explained(self.url):
                return (await obstore.head_async(self._store, key))["last_modified"]
        except FileNotFoundError:
            return None


def _opened(url: str) -> ObjectStore:
    if urlsplit(url).scheme not in ("", "file"):
        return from_url(url)
    folder = Path(url.removeprefix("file://")).absolute()
    # the name of an empty folder would still show a session or a content
    return LocalStore(folder, mkdir=True, automatic_cleanup=True)


def _mark(key: str) -> str:
    """Return the key of the mark for blobs of this content, or for the key itself if it names no content."""
    content = CONTENT.search(key)
    return _REMOVING + (content.group() if content else hashlib.sha256(key.encode()).hexdigest())

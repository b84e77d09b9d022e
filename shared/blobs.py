"""The photo store: blobs by content, behind one small interface (obstore: a folder, Azure, S3, GCS).

Keys are ours, made of content hashes, never of names from outside: ``originals/<sha256>``,
``previews/<sha256>.jpg``, ``facts/<sha256>.json``, ``schemas/<digest>.json``, ``vision/<key>.json``,
``reports/<session or photo>/…``.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, from_url

from events.identities import StoreUrl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from obstore.store import ObjectStore

SCHEME = "store:"


class BlobMissingError(FileNotFoundError):
    """A reference points at a blob that is not in the store (its retention may be over)."""


def store_key(url: str) -> str:
    """The key of a ``store:`` URL. Raises ValueError for any other URL, and for one that leaves the store."""
    key = url.removeprefix(SCHEME).lstrip("/")
    if not url.startswith(SCHEME) or not key or any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"not a reference into the photo store: {url[:200]!r}; expected store:<key>")
    return key


class BlobStore:
    """Put, get, list and delete blobs. Writing is idempotent: a key made of a hash has one content."""

    def __init__(self, url: str) -> None:
        """Open the store at `url`: ``file:///folder``, a plain path, ``az://``, ``s3://`` or ``gs://``."""
        self.url = url
        scheme = urlsplit(url).scheme
        self._store: ObjectStore
        if scheme in ("", "file"):
            folder = Path(url.removeprefix("file://")).absolute()
            self._store = LocalStore(folder, mkdir=True)
        else:
            self._store = from_url(url)

    async def put(self, key: str, data: bytes) -> StoreUrl:
        """Write a blob; if the key is there already, leave it. For keys made of the content's hash."""
        with contextlib.suppress(AlreadyExistsError):
            await obstore.put_async(self._store, key, data, mode="create")
        return StoreUrl(SCHEME + key)

    async def replace(self, key: str, data: bytes) -> StoreUrl:
        """Write a blob over what was there. For reports, whose key says what they are about."""
        await obstore.put_async(self._store, key, data)
        return StoreUrl(SCHEME + key)

    async def put_file(self, key: str, path: Path) -> StoreUrl:
        """Like `put`, streaming from a file."""
        with contextlib.suppress(AlreadyExistsError):
            await obstore.put_async(self._store, key, path, mode="create")
        return StoreUrl(SCHEME + key)

    async def get(self, url: str) -> bytes:
        """The blob of a ``store:`` URL. Raises BlobMissingError."""
        key = store_key(url)
        try:
            result = await obstore.get_async(self._store, key)
            return bytes(await result.bytes_async())
        except FileNotFoundError as error:
            raise BlobMissingError(
                f"the photo store has no {key} (retention over, or another store?)"
            ) from error

    async def exists(self, url: str) -> bool:
        """Whether the blob of a ``store:`` URL is there."""
        try:
            await obstore.head_async(self._store, store_key(url))
        except FileNotFoundError:
            return False
        return True

    async def delete(self, url: str) -> None:
        """Remove a blob; none there is as good."""
        try:
            await obstore.delete_async(self._store, store_key(url))
        except FileNotFoundError:
            return

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        """All keys below a prefix."""
        async for chunk in obstore.list(self._store, prefix):
            for meta in chunk:
                yield meta["path"]

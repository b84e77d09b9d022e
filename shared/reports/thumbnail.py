"""Makes the small picture of a session's page, once per content, when its photo is validated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.photo_store import SCHEME, BlobMissingError
from shared.photos.decoders import THUMBNAIL_SIDE

if TYPE_CHECKING:
    from events.identities import Sha256, StoreUrl
    from shared.photo_store import BlobStore
    from shared.photos.decoders import Decoders

_QUALITY = 75
"""Of the JPEG: it is looked at in a list."""


def thumbnail_key(sha256: Sha256) -> str:
    """Return its key, beside the preview, so that removing a content's previews by prefix removes it too."""
    return f"previews/{sha256}-{THUMBNAIL_SIDE}.jpg"


async def thumbnail(
    store: BlobStore, decoders: Decoders, sha256: Sha256, preview_ref: StoreUrl
) -> bytes | None:
    """Return the thumbnail's JPEG bytes, made from the preview if missing; None without a preview."""
    key = thumbnail_key(sha256)
    try:
        return await store.get(SCHEME + key)
    except BlobMissingError:
        pass
    try:
        preview = await store.get(preview_ref)
    except BlobMissingError:
        return None
    small = await decoders.preview(preview, THUMBNAIL_SIDE, quality=_QUALITY)
    await store.put(key, small)
    return small

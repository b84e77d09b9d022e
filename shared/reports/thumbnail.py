"""Makes the small picture of a session's page, once per content, when its photo is validated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.photo_store import SCHEME, BlobMissingError
from shared.photos.open import off_loop
from shared.photos.preview import THUMBNAIL_SIDE
from shared.photos.preview import thumbnail as make_thumbnail

if TYPE_CHECKING:
    from events.identities import Sha256, StoreUrl
    from shared.photo_store import BlobStore


def thumbnail_key(sha256: Sha256) -> str:
    """Return its key, beside the preview, so that removing a content's previews by prefix removes it too."""
    return f"previews/{sha256}-{THUMBNAIL_SIDE}.jpg"


async def thumbnail(store: BlobStore, sha256: Sha256, preview_ref: StoreUrl) -> bytes | None:
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
    small = await off_loop(make_thumbnail, preview)
    await store.put(key, small)
    return small

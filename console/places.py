"""Where people find what lies in the photo store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from console.addresses import bare

if TYPE_CHECKING:
    from shared.settings import Settings


def place_of(settings: Settings, reference: str) -> str:
    """A file's path where the store is a folder, else the blob's address in the cloud store."""
    from shared.photo_store import store_key

    url, key = settings.photo_store_url, store_key(reference)
    if urlsplit(url).scheme in ("", "file"):
        return str(Path(url.removeprefix("file://")).absolute() / key)
    return f"{bare(url).rstrip('/')}/{key}"

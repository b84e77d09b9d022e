"""The facts of a photo in one call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shared.photos.exif import facts_of
from shared.photos.open import opened

if TYPE_CHECKING:
    from datetime import datetime

    from shared.photos.facts import PhotoFacts


def read_facts(source: bytes | Path, *, now: datetime | None = None) -> PhotoFacts:
    """The facts of a photo's bytes or file; `now` (aware) is what a date in the future is measured by."""
    data = source.read_bytes() if isinstance(source, Path) else source
    with opened(data) as photo:
        return facts_of(photo, now=now)

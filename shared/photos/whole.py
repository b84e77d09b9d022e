"""Checks that a file is a whole photo, and nothing else beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyvips

from shared.photos.facts import called
from shared.photos.kinds import JPEG, PNG
from shared.photos.preview import shrunk
from shared.retry.errors import PermanentError

if TYPE_CHECKING:
    from shared.photos.open import OpenPhoto


_LAST_PART: Final = 1_000_000
"""Bytes of a photo without an end that are looked at for a document behind it."""


def ensure_whole(photo: OpenPhoto, *, name: str | None = None) -> None:
    """Raise PermanentError if the photo is cut off, or if a document or an archive hides behind it.

    A film or a second picture behind it is what phones write and stays.
    """
    data, kind, shown = photo.data, photo.kind, called(name)
    end = photo.end
    if kind in (JPEG, PNG) and end is None and _has_all_pixels(photo):
        # where its pixels end is not known: what hides in its last part counts as behind them
        end = max(0, len(data) - _LAST_PART)
    if end is None:
        raise PermanentError(
            f"the {kind.name} photo{shown} is cut off after {len(data):,} bytes: send the whole file again"
        )
    behind = data[end:].lower()
    hidden = next(
        (
            words
            for mark, words in (
                (b"<html", "an HTML page"),
                (b"<script", "a script"),
                (b"<?php", "a script"),
                (b"%pdf-", "a PDF document"),
            )
            if mark in behind
        ),
        "an archive" if photo.archive else None,
    )
    if hidden:
        raise PermanentError(
            f"the {kind.name} photo{shown} has {hidden} behind its last pixel: save it again as a photo alone"
        )


def _has_all_pixels(photo: OpenPhoto) -> bool:
    """Decode a photo without an end: some programs forget it, and all pixels are there."""
    try:
        shrunk(photo, 64)
    except (pyvips.Error, ValueError):
        return False
    return True

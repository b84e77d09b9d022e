"""Reads a WebP's EXIF, and hides it from the decoder (WebP container specification)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.photos.own_bytes import framed

if TYPE_CHECKING:
    from shared.photos.kinds import Data
    from shared.photos.own_bytes import Pixels


def exif_of(data: Data) -> tuple[bytes, int]:
    """Return the EXIF block and where its chunk starts; empty and 0 if there is none."""
    position, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while position + 8 <= end:
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"EXIF":
            return data[position + 8 : position + 8 + size], position
        position += 8 + size + size % 2
    return b"", 0


def picture_of(data: Data, exif_at: int) -> Pixels:
    """Return the WebP again with its EXIF under a name that no decoder knows.

    libvips would read it with a library of its own.
    """
    if not exif_at:
        return data
    if exif_at < len(data) // 2:
        return framed(data, data[:exif_at] + b"exif", exif_at + 4, len(data))
    return framed(data, b"", 0, exif_at, b"exif" + data[exif_at + 4 :])

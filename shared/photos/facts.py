"""Defines what is known about a photo before its pixels are decoded.

Only these values leave the process that reads foreign bytes (`shared.photos.decoders`).
"""

from __future__ import annotations

import msgspec


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """The place of the camera in WGS 84. It is personal data: it stays in the store and the library."""

    latitude: float
    """Degrees, north positive."""
    longitude: float
    """Degrees, east positive."""
    altitude: float | None = None
    """Metres above the sea."""

    @property
    def text(self) -> str:
        """The value for a place column: degrees with four decimals, which is about ten metres."""
        return f"{self.latitude:.4f}, {self.longitude:.4f}"


class PhotoFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The values of EXIF that make sense."""

    taken_at: str | None = None
    """RFC 3339 to the second; with an offset if the camera wrote one, else local time without a zone."""
    camera: str | None = None
    orientation: int = 1
    """1 to 8 (EXIF). Always 1 for a HEIC that has an instruction of its own: its decoder has turned it."""
    position: Position | None = None


class PhotoHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of a photo states."""

    media_type: str
    extension: str
    """Without a dot."""
    width: int
    """Pixels as stored; of a HEIC, already turned by its own instruction."""
    height: int


def called(name: str | None) -> str:
    """Return the name for a sentence: at most 80 printable characters, or nothing."""
    shown = "".join(letter for letter in name or "" if letter.isprintable())[:80]
    return f" (named {shown})" if shown else ""

"""Defines what an agent and its decoder process say to each other.

Each message is msgpack behind its length in four bytes, the most significant first. The photo's bytes are
not in the request: they lie in a file in memory that both processes have open.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

import msgspec

from shared.photos.facts import PhotoFacts, PhotoHeader

LENGTH: Final = struct.Struct(">I")
MAX_MESSAGE: Final = 16_000_000
"""Bytes. A preview has some 300,000; more would be a decoder that somebody else has taken over."""
PHOTO_FILE: Final = 3
"""The descriptor of the photo's bytes in the decoder process; 0 is the connection, 1 and 2 lead nowhere."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The decoder's only argument."""

    parent: int
    """Process id."""
    photo_file: int
    """The descriptor it inherits."""
    memory_bytes: int
    """Address space beyond that of the started process."""


class Examine(msgspec.Struct, frozen=True, kw_only=True, tag="examine"):
    """Asks for what is known of a photo without decoding it."""

    cpu_seconds: int
    name: str | None = None
    size: int = 0
    """Bytes of the photo; the process that asks fills it in."""


class MakePreview(msgspec.Struct, frozen=True, kw_only=True, tag="preview"):
    """Asks for a small JPEG."""

    cpu_seconds: int
    side: int
    """Pixels, the long one."""
    quality: int
    name: str | None = None
    size: int = 0
    """Bytes of the photo; the process that asks fills it in."""


class Examined(msgspec.Struct, frozen=True, kw_only=True, tag="examined"):
    """A whole photo of a kind that is taken."""

    header: PhotoHeader
    facts: PhotoFacts


class Preview(msgspec.Struct, frozen=True, kw_only=True, tag="jpeg"):
    """A small version of the photo."""

    jpeg: bytes


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """Not a photo that is taken."""

    sentence: str


class OutOfMemory(msgspec.Struct, frozen=True, kw_only=True, tag="memory"):
    """Decoding took more memory than is allowed."""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """A mistake in the decoder's own code, or in how it was started."""

    text: str


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The decoder has given up its rights and waits for photos."""

    unfiltered: str = ""
    """Why the kernel filters no system calls of it; '' if it does."""


Request: TypeAlias = Examine | MakePreview
Reply: TypeAlias = Examined | Preview | Refused | OutOfMemory | Failed | Ready

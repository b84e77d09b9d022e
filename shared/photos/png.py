"""Reads and shortens a PNG without decoding it (PNG, third edition).

Texts and colour profiles are stored compressed: a small chunk can unfold to gigabytes in a decoder. So the
decoder gets the picture without its texts, and only profiles of a sensible size.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

import msgspec

from shared.photos.kinds import png_chunks
from shared.photos.own_bytes import Pixels, framed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.photos.kinds import Data

MAX_PROFILE_BYTES: Final = 4_000_000
"""Of a colour profile, unfolded. Those of printers have up to 3 MB."""
_MAX_TEXT_BYTES: Final = 300_000
"""Of EXIF as text: 64 kB of EXIF, two digits a byte, and line ends."""
_CRITICAL: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
# What decoding needs beside these, transparency and colour, and what is small: to leave it out takes a copy.
_NEEDED: Final = frozenset({b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"pHYs", b"bKGD", b"tIME"})
_TEXTS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
_OLD_EXIF: Final = b"Raw profile type exif\0"


class PngLayout(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a PNG."""

    picture: Pixels
    """The PNG again with its picture alone; the bytes themselves if there is nothing else."""
    exif: bytes
    """Wherever it stands; empty if there is none."""
    end: int | None
    """Where the picture ends; None if its end is missing."""


def layout_of(data: Data) -> PngLayout:
    """Read the chunks, of which large photos have thousands, once."""
    kept: list[tuple[int, int]] = []
    first, last, exif, done = 0, 8, b"", None
    texts: list[tuple[bytes, bytes]] = []
    for name, start, end in png_chunks(data):
        if name in _CRITICAL or (name in _NEEDED and (name != b"iCCP" or _is_sensible(data[start:end]))):
            if last != start - 8:
                kept.append((first, last))
                first = start - 8
            last = end + 4
            if name == b"IEND":
                done = last
                break
        elif name == b"eXIf":
            exif = data[start:end]
        elif name in _TEXTS and data[start : start + len(_OLD_EXIF)] == _OLD_EXIF:
            texts.append((name, data[start + len(_OLD_EXIF) : end]))
    kept.append((first, last))
    return PngLayout(
        # without its end a decoder takes nothing, although all pixels may be there
        picture=_joined(data, kept, b"" if done else _END),
        exif=exif or next(_raw_profiles(texts), b""),
        end=done,
    )


def _joined(data: Data, parts: list[tuple[int, int]], end: bytes) -> Pixels:
    """Return the parts in a row, then `end`. The longest part, which has the pixels, stays where it is."""
    longest = max(range(len(parts)), key=lambda number: parts[number][1] - parts[number][0])
    before, after = (
        b"".join(data[start:end] for start, end in some) for some in (parts[:longest], parts[longest + 1 :])
    )
    return framed(data, before, *parts[longest], after + end)


def _raw_profiles(texts: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Decode EXIF as older ImageMagick writes it: three lines of heading, then hex digits."""
    for name, body in texts[:3]:
        try:
            yield bytes.fromhex(b"".join(_text(name, body).split(b"\n")[3:]).decode("ascii"))
        except (ValueError, LookupError, zlib.error):
            continue


def _text(name: bytes, body: bytes) -> bytes:
    """Return the text of a chunk behind its keyword (11.3.3), cut at the size of EXIF."""
    packed = name == b"zTXt"
    if packed:
        body = body[1:]
    elif name == b"iTXt":
        packed = body[0] == 1
        body = body[2:].split(b"\0", 2)[2]
    return zlib.decompressobj().decompress(body, _MAX_TEXT_BYTES) if packed else body[:_MAX_TEXT_BYTES]


def _is_sensible(body: bytes) -> bool:
    """Report whether a colour profile (11.3.2.3) unfolds to a sensible size."""
    packed = body.partition(b"\0")[2][1:]
    try:
        return len(zlib.decompressobj().decompress(packed, MAX_PROFILE_BYTES + 1)) <= MAX_PROFILE_BYTES
    except zlib.error:
        return False

"""Reads and shortens a PNG without decoding it (PNG, third edition).

Texts and colour profiles are stored compressed: a small chunk can unfold to gigabytes in a decoder. So the
decoder gets the picture without its texts, and only profiles of a sensible size.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from shared.photos.kinds import png_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PROFILE_BYTES: Final = 4_000_000
"""Of a colour profile, unfolded. Those of printers have up to 3 MB."""
_MAX_TEXT_BYTES: Final = 300_000
"""Of EXIF as text: 64 kB of EXIF, two digits a byte, and line ends."""
# What decoding needs, beside the chunks that a decoder must understand (5.4: their names begin with a
# capital): transparency and colour.
_NEEDED: Final = frozenset({b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT"})
_TEXTS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_OLD_EXIF: Final = b"Raw profile type exif"


def picture_of(data: bytes) -> bytes:
    """Return the PNG again with its picture alone, the bytes themselves if there is nothing else."""
    kept: list[tuple[int, int]] = [(0, 8)]
    for name, start, end in png_chunks(data):
        if name[:1].isupper() or (name in _NEEDED and (name != b"iCCP" or _is_sensible(data[start:end]))):
            if kept[-1][1] == start - 8:
                kept[-1] = (kept[-1][0], end + 4)
            else:
                kept.append((start - 8, end + 4))
        if name == b"IEND":
            break
    return data if kept == [(0, len(data))] else b"".join(data[start:end] for start, end in kept)


def exif_of(data: bytes) -> bytes:
    """Return the EXIF block, wherever it stands; empty if there is none."""
    texts = []
    for name, start, end in png_chunks(data):
        if name == b"eXIf":
            return data[start:end]
        if name in _TEXTS and data.startswith(_OLD_EXIF + b"\0", start):
            texts.append((name, data[start + len(_OLD_EXIF) + 1 : end]))
    return next(_raw_profiles(texts), b"")


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

"""Writes a HEIC of a grey picture with 10 or 12 bits a pixel, as cameras for documents and X-rays do."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sandbox import heic as writer
from shared.photos.heif import Item, box, full_box, heif_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

# Format range extensions (H.265, A.3.5): monochrome of up to so many bits.
_PROFILES: Final[Mapping[int, bytes]] = {
    10: b"\x04\x08\x00\x00\x00\x9c\x98" + bytes(4),
    12: b"\x04\x08\x00\x00\x00\x99\x98" + bytes(4),
}


def deep_grey(picture: Image.Image, depth: int) -> bytes:
    """The file. Width and height must be multiples of 16."""
    width, height = picture.size
    assert width % 16 == height % 16 == 0
    profile = _PROFILES[depth]
    video = writer._video_parameters().replace(writer._PROFILE, profile)
    sets = (video, _sequence(width, height, depth), writer._picture_parameters())
    record = b"\x01" + profile + bytes([writer._LEVEL]) + b"\xf0\x00\xfc\xfc"
    record += bytes([0xF8 | depth - 8, 0xF8 | depth - 8]) + b"\x00\x00\x0f" + bytes([len(sets)])
    for kind, unit in zip((32, 33, 34), sets, strict=True):
        record += struct.pack(">BHH", 0x80 | kind, 1, len(unit)) + unit
    unit = writer._nal(20, _slice(picture.convert("L"), depth))
    properties = (
        box(b"hvcC", record)
        + full_box(b"ispe", struct.pack(">II", width, height))
        + full_box(b"pixi", bytes([1, depth]))
    )
    item = Item(kind=b"hvc1", data=struct.pack(">I", len(unit)) + unit, used=b"\x81\x82\x83")
    return heif_file([item], properties)


def _sequence(width: int, height: int, depth: int) -> bytes:
    """7.3.2.2: like the one of `sandbox.heic`, without colour and with more bits."""
    bits = writer._Bits()
    bits.u(4, 0)
    bits.u(3, 0)
    bits.u(1, 1)
    bits.raw(_PROFILES[depth] + bytes([writer._LEVEL]))
    bits.ue(0, 0, width, height)
    bits.u(1, 0)
    bits.ue(depth - 8, depth - 8, 0)
    bits.u(1, 1)
    bits.ue(0, 0, 0)
    bits.ue(0, 1, 0, 2, 0, 0)
    bits.u(3, 0)
    bits.u(1, 1)
    bits.u(4, depth - 1)
    bits.u(4, depth - 1)
    bits.ue(1, 0)
    bits.u(1, 1)
    bits.ue(0)
    bits.u(5, 0)
    return writer._nal(33, bits.closed())


def _slice(picture: Image.Image, depth: int) -> bytes:
    header = writer._Bits()
    header.u(2, 0b10)
    header.ue(0, 2, 0)
    parts = [header.closed()]
    corners = [(x, y) for y in range(0, picture.height, 16) for x in range(0, picture.width, 16)]
    for number, (left, top) in enumerate(corners):
        parts.append(writer._opening(min(number, len(writer._RANGE_LPS) - 1), first=number == 0))
        block = picture.crop((left, top, left + 16, top + 16)).tobytes()
        text = "".join(f"{value << depth - 8:0{depth}b}" for value in block)
        parts.append(int(text, 2).to_bytes(len(text) // 8))
    parts.append(writer._Coder().end(value=True))
    return b"".join(parts)

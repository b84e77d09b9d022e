"""Writes a HEIC file, as phones do, without an HEVC encoder: every block is stored uncompressed.

No package with an encoder may be shipped. HEVC has a mode for blocks that are not worth compressing
(I_PCM); a picture of only such blocks is valid, large, and the same bytes every time.
References are to ITU-T H.265 (2021) and ISO/IEC 23008-12.
"""

from __future__ import annotations

import re
import struct
from functools import cache
from typing import TYPE_CHECKING, Final

from shared.photos.heif import Item, Reference, box, full_box, heif_file

if TYPE_CHECKING:
    from PIL import Image

_BLOCK: Final = 16
"""Pixels of a coding tree block's side, the smallest there is."""
_LEVEL: Final = 180
"""Level 6: up to 8192 by 4320 pixels."""
# H.265 table 9-52, the column for a range of 448 to 510, by state.
_RANGE_LPS: Final = (
    240, 227, 216, 205, 195, 185, 175, 166, 158, 150, 142, 135, 128, 122, 116, 110, 104, 99, 94, 89, 85, 80,
    76, 72, 69, 65, 62, 59, 56, 53, 50, 48, 45, 43, 41, 39, 37, 35, 33, 31, 30, 28, 27, 25, 24, 23, 22, 21,
    20, 19, 18, 17, 16, 15, 14, 14, 13, 12, 12, 11, 11, 10, 9,
)  # fmt: skip


def heic(
    picture: Image.Image,
    *,
    exif: bytes = b"",
    quarter_turns: int | None = 0,
    tile: int = 0,
    repeat: tuple[int, int] | None = None,
) -> bytes:
    """A HEIC file of a picture, its last odd row and column left out (colour is stored at half the size).

    `exif` is a TIFF structure. `quarter_turns` is how often a reader turns the stored pixels by 90 degrees
    anticlockwise; where it is stored, EXIF's orientation does not count. None stores no such instruction.
    `tile` is the side of the tiles that the picture is cut into, as phones do with 512; 0 is one piece. With
    `repeat` the picture is one tile, which fills that size.
    """
    width, height = repeat or (picture.width // 2 * 2, picture.height // 2 * 2)
    side = (tile, tile) if tile else (width, height)
    sets = (_video_parameters(), _sequence_parameters(*side), _picture_parameters())
    properties = b"".join(
        (
            box(b"hvcC", _decoder_record(sets)),
            full_box(b"ispe", struct.pack(">II", *side)),
            # BT.709 primaries, sRGB transfer, BT.601 matrix, full range: how Pillow makes YCbCr.
            box(b"colr", b"nclx", struct.pack(">HHHB", 1, 13, 6, 0x80)),
            box(b"irot", bytes([quarter_turns % 4])) if quarter_turns is not None else box(b"free"),
            full_box(b"ispe", struct.pack(">II", width, height)),
        )
    )
    references = []
    if tile:
        across, down = -(-width // tile), -(-height // tile)
        grid = struct.pack(">BBBBII", 0, 1, down - 1, across - 1, width, height)
        corners = [(x * tile, y * tile) for y in range(down) for x in range(across)]
        coded = (
            [_coded(picture, *side)] * len(corners)
            if repeat
            # Beyond the picture's edge a tile is black, and not shown.
            else [_coded(picture.crop((x, y, x + tile, y + tile)), *side) for x, y in corners]
        )
        items = [Item(kind=b"grid", data=grid, used=b"\x85\x83\x84")]
        items += [Item(kind=b"hvc1", data=data, used=b"\x81\x82\x83") for data in coded]
        references.append(Reference(b"dimg", 1, list(range(2, len(items) + 1))))
    else:
        items = [Item(kind=b"hvc1", data=_coded(picture, *side), used=b"\x81\x82\x83\x84")]
    if exif:
        # The offset to the TIFF header, past a marker that some readers want to see.
        items.append(Item(kind=b"Exif", data=struct.pack(">I", 6) + b"Exif\0\0" + exif))
        references.append(Reference(b"cdsc", len(items), [1]))
    return heif_file(items, properties, references)


def _coded(picture: Image.Image, width: int, height: int) -> bytes:
    """One picture as an item holds it: each unit of the stream behind its length."""
    unit = _nal(20, _slice(picture, width, height))
    return struct.pack(">I", len(unit)) + unit


def _decoder_record(sets: tuple[bytes, ...]) -> bytes:
    """ISO/IEC 14496-15, 8.3.2: profile and level once more, and the parameter sets."""
    record = b"\x01" + _PROFILE + bytes([_LEVEL]) + b"\xf0\x00\xfc\xfd\xf8\xf8\x00\x00\x0f"
    record += bytes([len(sets)])
    for kind, unit in zip((32, 33, 34), sets, strict=True):
        record += struct.pack(">BHH", 0x80 | kind, 1, len(unit)) + unit
    return record


# Main profile: compatibility flags 1 and 2, progressive, frames only.
_PROFILE: Final = b"\x01\x60\x00\x00\x00\x90" + bytes(5)


class _Bits:
    """Bits in the codes of H.265: fixed length, and Exp-Golomb."""

    def __init__(self) -> None:
        self._text = ""

    def u(self, width: int, value: int) -> None:
        self._text += f"{value:0{width}b}"

    def ue(self, *values: int) -> None:
        for value in values:
            code = f"{value + 1:b}"
            self._text += "0" * (len(code) - 1) + code

    def raw(self, data: bytes) -> None:
        for byte in data:
            self.u(8, byte)

    def closed(self) -> bytes:
        """With the stop bit, filled up to a whole byte."""
        text = self._text + "1"
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8)


def _nal(kind: int, payload: bytes) -> bytes:
    """A unit of the stream; three bytes that could be taken for a start code are broken up (7.3.1.1)."""
    return bytes([kind << 1, 1]) + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", payload)


def _video_parameters() -> bytes:
    """7.3.2.1."""
    bits = _Bits()
    bits.u(4, 0)
    bits.u(2, 0b11)  # the base layer is here
    bits.u(6, 0)
    bits.u(3, 0)
    bits.u(1, 1)
    bits.u(16, 0xFFFF)
    bits.raw(_PROFILE + bytes([_LEVEL]))
    bits.u(1, 1)
    bits.ue(0, 0, 0)  # one picture, no reordering
    bits.u(6, 0)
    bits.ue(0)
    bits.u(2, 0)
    return _nal(32, bits.closed())


def _sequence_parameters(width: int, height: int) -> bytes:
    """7.3.2.2: 4:2:0, 8 bits, blocks of 16 that may be stored uncompressed."""
    bits = _Bits()
    bits.u(4, 0)
    bits.u(3, 0)
    bits.u(1, 1)
    bits.raw(_PROFILE + bytes([_LEVEL]))
    bits.ue(0, 1, _whole(width), _whole(height))
    bits.u(1, 1)  # what is shown of it, in units of two pixels: left, right, top, bottom
    bits.ue(0, (_whole(width) - width) // 2, 0, (_whole(height) - height) // 2)
    bits.ue(0, 0, 0)  # 8 bits luma, 8 bits chroma, 4 bits of picture order count
    bits.u(1, 1)
    bits.ue(0, 0, 0)
    bits.ue(0, 1, 0, 2, 0, 0)  # coding blocks 8 to 16, transforms 4 to 16, not split
    bits.u(3, 0)  # no scaling lists, asymmetric partitions or sample offsets
    bits.u(1, 1)  # uncompressed blocks:
    bits.u(8, 0x77)  # 8 bits luma and chroma
    bits.ue(1, 0)  # of 16 pixels only
    bits.u(1, 1)  # not filtered
    bits.ue(0)
    bits.u(5, 0)
    return _nal(33, bits.closed())


def _picture_parameters() -> bytes:
    """7.3.2.3: everything optional off, deblocking too."""
    bits = _Bits()
    bits.ue(0, 0)
    bits.u(7, 0)
    bits.ue(0, 0, 0)
    bits.u(3, 0)
    bits.ue(0, 0)
    bits.u(7, 0)
    bits.u(3, 0b101)  # deblocking is controlled here, cannot be overridden, is off
    bits.u(2, 0)
    bits.ue(0)
    bits.u(2, 0)
    return _nal(34, bits.closed())


def _slice(picture: Image.Image, width: int, height: int) -> bytes:
    """7.3.6 and 7.3.8: a header, then block by block its samples in raster order."""
    header = _Bits()
    header.u(2, 0b10)
    header.ue(0, 2, 0)  # an intra slice at the quantiser the picture parameters name
    parts = [header.closed()]
    shown = picture.convert("YCbCr").crop((0, 0, width, height))
    # The padding is never shown; crop beyond the edge fills it with zeros.
    luma, *chroma = shown.crop((0, 0, _whole(width), _whole(height))).split()
    chroma = [plane.reduce(2) for plane in chroma]
    half = _BLOCK // 2
    number = 0
    for top in range(0, luma.height, _BLOCK):
        for left in range(0, luma.width, _BLOCK):
            parts.append(_opening(min(number, len(_RANGE_LPS) - 1), first=number == 0))
            parts.append(luma.crop((left, top, left + _BLOCK, top + _BLOCK)).tobytes())
            corner = (left // 2, top // 2, left // 2 + half, top // 2 + half)
            parts += [plane.crop(corner).tobytes() for plane in chroma]
            number += 1
    parts.append(_Coder().end(value=True))
    return b"".join(parts)


def _whole(length: int) -> int:
    """A length rounded up to whole blocks."""
    return -(-length // _BLOCK) * _BLOCK


@cache
def _opening(state: int, *, first: bool) -> bytes:
    """Return what the arithmetic coder writes before a block: go on, don't split, samples follow.

    The coder starts again after each block; only the state of the split flag's context is kept. It starts
    at 0 with "not split" as the likely value (9.3.2.2 at quantiser 26), which it always is, so it climbs
    by one with each block.
    """
    coder = _Coder()
    if not first:
        coder.end(value=False)
    coder.likely(_RANGE_LPS[state])
    return coder.end(value=True)


class _Coder:
    """The arithmetic encoder of 9.3.4, as far as it is needed."""

    def __init__(self) -> None:
        self._low, self._range = 0, 510
        self._outstanding = 0
        self._bits: list[int] = []

    def likely(self, range_lps: int) -> None:
        """Encode the more probable value of a context."""
        self._range -= range_lps
        self._renormalise()

    def end(self, *, value: bool) -> bytes:
        """Encode whether something ends here; if it does, the bytes so far, filled up with zeros."""
        self._range -= 2
        if not value:
            self._renormalise()
            return b""
        self._low += self._range
        self._range = 2
        self._renormalise()
        self._put(self._low >> 9 & 1)
        # The last bit written is the stop bit of the slice, or one that the decoder skips.
        bits = [*self._bits, self._low >> 8 & 1, 1][1:]  # the very first bit has no meaning
        bits += [0] * (-len(bits) % 8)
        return int("".join(map(str, bits)), 2).to_bytes(len(bits) // 8)

    def _renormalise(self) -> None:
        while self._range < 256:
            if self._low < 256:
                self._put(0)
            elif self._low >= 512:
                self._low -= 512
                self._put(1)
            else:
                self._low -= 256
                self._outstanding += 1
            self._range <<= 1
            self._low <<= 1

    def _put(self, bit: int) -> None:
        self._bits += [bit, *[1 - bit] * self._outstanding]
        self._outstanding = 0

"""Small files that are made to cost a decoder much time or memory."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from PIL import Image

from sandbox import heic as writer
from shared.photos.heif import Item, Reference, box, full_box, heif_file
from tests.shared.photos.pictures import saved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def heic_tiles(columns: int = 16, rows: int = 16, tile: int = 64, units: int = 100_000) -> bytes:
    """A HEIC whose tiles share one long run of units, which a decoder walks again for each of them."""
    side, size = (tile, tile), (columns * tile, rows * tile)
    sets = (
        writer._video_parameters(),
        writer._sequence_parameters(*side),
        writer._picture_parameters(),
    )
    properties = b"".join(
        (
            box(b"hvcC", writer._decoder_record(sets)),
            full_box(b"ispe", struct.pack(">II", *side)),
            box(b"colr", b"nclx", struct.pack(">HHHB", 1, 13, 6, 0x80)),
            box(b"irot", b"\0"),
            full_box(b"ispe", struct.pack(">II", *size)),
        )
    )
    # 38 is filler data (H.265, table 7-1)
    unit = bytes([38 << 1, 1]) + b"\xff" * 4
    coded = writer._coded(Image.new("RGB", side, (120, 60, 30)), *side)
    data = (struct.pack(">I", len(unit)) + unit) * units + coded
    grid = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, *size)
    items = [Item(kind=b"grid", data=grid, used=b"\x85\x83\x84")]
    items += [Item(kind=b"hvc1", data=data, used=b"\x81\x82\x83")] * (columns * rows)
    return heif_file(items, properties, [Reference(b"dimg", 1, list(range(2, columns * rows + 2)))])


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks: bytes) -> bytes:
    """A PNG of 8 x 8 pixels with more chunks before its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 200))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def png_texts(number: int = 20, kind: bytes = b"iTXt") -> bytes:
    """A PNG whose texts unfold to 40 MB each, twice as much in a decoder."""
    packed = zlib.compress(b"\nexif\n9999999\n" + b"ff" * 20_000_000, 9)
    before = {b"iTXt": b"\0\1\0\0\0", b"zTXt": b"\0\0"}[kind]
    return png_with(*[chunk(kind, b"Raw profile type exif" + before + packed)] * number)


def png_profile() -> bytes:
    """A PNG whose colour profile unfolds to 400 MB."""
    return png_with(chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(400_000_000), 9)))


def exif_loop(form: str = "JPEG") -> bytes:
    """A photo whose EXIF directory points at itself, 5,000 times."""
    entries = struct.pack("<HHII", 0x8769, 4, 1, 8) * 5_000
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 5_000) + entries + b"\0\0\0\0"
    return saved(Image.new("RGB", (64, 64), (9, 9, 9)), form, exif=b"Exif\0\0" + block)


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "tiles.heic": heic_tiles,
    "texts.png": png_texts,
    "old texts.png": lambda: png_texts(kind=b"zTXt"),
    "profile.png": png_profile,
    "exif.jpg": exif_loop,
    "exif.webp": lambda: exif_loop("WEBP"),
    "exif.png": lambda: exif_loop("PNG"),
}

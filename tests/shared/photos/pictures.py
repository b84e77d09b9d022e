"""Pictures and EXIF blocks for the tests, small, made on the spot, as broken as wanted."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Final, TypeAlias

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

Entry: TypeAlias = tuple[int, int, int, bytes]
"""Tag, type, count and value of one directory entry."""

CORNERS: Final = ("red", "lime", "blue", "yellow")
"""Top left, top right, bottom left, bottom right of `picture`."""


def picture(width: int = 48, height: int = 32, mode: str = "RGB") -> Image.Image:
    """Four coloured quarters, so that it shows how a picture is turned."""
    image = Image.new("RGB", (width, height))
    for number, colour in enumerate(CORNERS):
        left, top = number % 2 * width // 2, number // 2 * height // 2
        image.paste(colour, (left, top, left + width // 2, top + height // 2))
    return image.convert(mode)


def saved(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    """The picture's file."""
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def jpeg(exif: bytes = b"") -> bytes:
    """A JPEG of the four quarters with a TIFF structure as its EXIF."""
    return saved(picture(), exif=b"Exif\0\0" + exif if exif else b"", quality=95, subsampling=0)


def text(tag: int, value: str | bytes, kind: int = 2) -> Entry:
    """An entry of ASCII (or another kind of bytes)."""
    raw = value.encode() if isinstance(value, str) else value
    return tag, kind, len(raw), raw


def short(tag: int, value: int, order: str = ">") -> Entry:
    """An entry of one 16-bit number."""
    return tag, 3, 1, struct.pack(order + "H", value)


def rationals(tag: int, *values: tuple[int, int], kind: int = 5, order: str = ">") -> Entry:
    """An entry of fractions; kind 10 is for signed ones."""
    code = order + ("ii" if kind == 10 else "II")
    return tag, kind, len(values), b"".join(struct.pack(code, *value) for value in values)


def tiff(
    main: Sequence[Entry] = (), detail: Sequence[Entry] = (), gps: Sequence[Entry] = (), order: str = ">"
) -> bytes:
    """A TIFF structure with up to three directories, their entries as given, right or wrong."""
    data = bytearray((b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "I", 0))
    pointers = [
        (tag, 4, 1, struct.pack(order + "I", _directory(data, entries, order)))
        for tag, entries in ((0x8769, detail), (0x8825, gps))
        if entries
    ]
    data[4:8] = struct.pack(order + "I", _directory(data, [*main, *pointers], order))
    return bytes(data)


def _directory(data: bytearray, entries: Sequence[Entry], order: str) -> int:
    """Append a directory and what does not fit into its entries; where it starts."""
    start = len(data)
    values_at = start + 2 + 12 * len(entries) + 4
    values = bytearray()
    data += struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        data += struct.pack(order + "HHI", tag, kind, count)
        if len(value) <= 4:
            data += value.ljust(4, b"\0")
        else:
            data += struct.pack(order + "I", values_at + len(values))
            values += value
    data += struct.pack(order + "I", 0) + values
    return start

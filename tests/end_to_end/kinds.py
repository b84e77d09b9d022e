"""Files of every kind that people send, each with its row in docs/metadata.md."""

from __future__ import annotations

import struct
from typing import Final, Literal, TypeAlias

import msgspec
from PIL import Image

from sandbox.heic import heic
from tests.shared.photos.pictures import jpeg, picture, rationals, saved, short, text, tiff
from tests.shared.photos.test_open import (
    GOOD,
    NO_PHOTOS,
    archive,
    interlaced_png,
    jpeg_of_size,
    png_header,
    repeated_heic,
    webp_canvas,
)

Row: TypeAlias = str
"""The first cell of a row in one of the two tables of files."""

_DATE: Final = text(0x9003, "2024:05:12 14:33:22")
_NORTH: Final = (text(1, "N"), rationals(2, (47, 1), (1, 1), (30, 1)))
_EAST: Final = (text(3, "E"), rationals(4, (8, 1), (37, 1), (55, 1)))
_PLACE: Final = "47.0250, 8.6319"


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file and what is expected of it."""

    row: Row
    name: str
    data: bytes
    ends: Literal["filed", "refused"] = "filed"
    says: str = ""
    """Part of the reason of a refused one."""
    date: str | None = None
    """The taken date that is stored."""
    place: str | None = None


def files() -> list[File]:
    """All of them, each with bytes of its own."""
    found = [*_formats(), *_turned(), *_dated(), *_placed(), *_refused()]
    # A marker in every JPEG, so that two of the same pixels are two photos.
    return [
        msgspec.structs.replace(file, data=_commented(file.data, file.name)) if file.ends == "filed" else file
        for file in found
    ]


def _formats() -> list[File]:
    rows = {
        "jpeg": "JPEG",
        "jpeg, progressive": "JPEG, progressive",
        "jpeg, grey": "JPEG, grey or CMYK",
        "jpeg, four inks": "JPEG, grey or CMYK",
        "jpeg with a film behind it": "JPEG with more behind it (MPO, motion photo)",
        "two pictures (MPO)": "JPEG with more behind it (MPO, motion photo)",
        "png": "PNG",
        "png, 16-bit grey": "PNG, 16 bits, a palette or transparent",
        "png, transparent": "PNG, 16 bits, a palette or transparent",
        "png, palette": "PNG, 16 bits, a palette or transparent",
        "png, one bit": "PNG, 16 bits, a palette or transparent",
        "webp": "WebP",
        "webp, lossless and transparent": "WebP",
        "heic": "HEIC, HEIF",
        "heic, turned by a quarter": "HEIC, HEIF",
        "heic, in tiles": "HEIC, HEIF",
    }
    found = [
        File(
            row=row,
            name=f"{key.replace(',', '').replace(' ', '-')}.{GOOD[key][1].extension}",
            data=GOOD[key][0],
        )
        for key, row in rows.items()
    ]
    wrong = File(
        row="a photo under another kind's name", name="really-a-png.jpg", data=saved(picture(60, 40), "PNG")
    )
    phone = File(row="HEIC, HEIF", name="48-megapixels.heic", data=repeated_heic(8_064, 6_048))
    interlaced = File(row="PNG, interlaced", name="interlaced.png", data=interlaced_png(60, 40))
    return [*found, wrong, phone, interlaced]


def _turned() -> list[File]:
    return [
        File(
            row="any of the eight orientations",
            name=f"turned-{number}.jpg",
            data=jpeg(tiff([short(0x0112, number)])),
        )
        for number in range(9)
    ]


def _dated() -> list[File]:
    """EXIF dates, right and odd. The site is in Europe/Zurich."""

    def dated(name: str, when: str | None, *detail: object) -> File:
        block = tiff(detail=detail)  # type: ignore[arg-type]  # entries, as the builder takes them
        row = "a taken date that is possible" if when else "a taken date that is not possible"
        return File(row=row, name=f"{name}.jpg", data=jpeg(block), date=when)

    return [
        dated("date", "2024-05-12", _DATE),
        dated("date-with-zone", "2024-05-13", text(0x9003, "2024:05:12 23:30:00"), text(0x9011, "-02:00")),
        dated("date-with-dashes", "2024-05-12", text(0x9003, "2024-05-12T14:33:22")),
        dated(
            "date-of-digitisation",
            "2024-05-12",
            text(0x9003, "0000:00:00 00:00:00"),
            text(0x9004, "2024:05:12 08:00:00"),
        ),
        dated("date-never-set", None, text(0x9003, "1980:01:01 00:00:00")),
        dated("date-in-the-future", None, text(0x9003, "2199:01:01 12:00:00")),
        dated("date-of-blanks", None, text(0x9003, "    :  :     :  :  ")),
        dated("date-13th-month", None, text(0x9003, "2024:13:12 14:33:22")),
        File(
            row="no EXIF, or broken EXIF",
            name="exif-broken.jpg",
            data=jpeg(b"II*\0\xff\xff\xff\xff" + bytes(8)),
        ),
        File(row="no EXIF, or broken EXIF", name="exif-none.jpg", data=saved(picture(52, 36))),
        File(
            row="a taken date that is possible",
            name="date-in-png.png",
            data=saved(picture(), "PNG", exif=tiff(detail=[_DATE])),
            date="2024-05-12",
        ),
        File(
            row="a taken date that is possible",
            name="date-in-webp.webp",
            data=saved(picture(), "WEBP", exif=tiff(detail=[_DATE])),
            date="2024-05-12",
        ),
        File(
            row="a taken date that is possible",
            name="date-in-heic.heic",
            data=heic(picture(64, 48), exif=tiff(detail=[_DATE])),
            date="2024-05-12",
        ),
    ]


def _placed() -> list[File]:
    """EXIF positions, right and odd."""

    def placed(name: str, place: str | None, *gps: object) -> File:
        block = tiff(gps=gps)  # type: ignore[arg-type]  # entries, as the builder takes them
        row = "a whole position" if place else "half a position, or one that cannot be"
        return File(row=row, name=f"{name}.jpg", data=jpeg(block), place=place)

    return [
        placed("position", _PLACE, *_NORTH, *_EAST),
        placed("position-south", "-47.0250, 8.6319", text(1, "S"), _NORTH[1], *_EAST),
        placed(
            "position-minutes", "47.0250, 8.6319", _NORTH[0], rationals(2, (47, 1), (15, 10), (0, 0)), *_EAST
        ),
        placed("position-half", None, *_NORTH),
        placed("position-no-hemisphere", None, _NORTH[1], _EAST[1]),
        placed("position-zero", None, _NORTH[0], rationals(2, (0, 1)), _EAST[0], rationals(4, (0, 1))),
        placed("position-north-of-the-pole", None, _NORTH[0], rationals(2, (147, 1)), *_EAST),
    ]


def _refused() -> list[File]:
    def refused(row: str, name: str, data: bytes, says: str) -> File:
        return File(row=row, name=name, data=data, ends="refused", says=says)

    other = "another kind of file"
    documents = [
        refused(other, f"other-{number}.jpg", data, what)
        for number, (what, data) in enumerate(NO_PHOTOS.items())
    ]
    return [
        *documents,
        refused("an empty file", "empty.jpg", b"", "is empty (0 bytes)"),
        refused("cut off", "cut.jpg", jpeg()[:-40], "is cut off after"),
        refused("damaged", "cut.png", saved(picture(), "PNG")[:-20], "is damaged and cannot be decoded"),
        refused("damaged", "damaged.png", _damaged_png(), "is damaged and cannot be decoded"),
        refused("damaged", "damaged.webp", webp_canvas(100, 100), "WebP photo"),
        refused("too many pixels", "many.png", png_header(50_000, 50_000), "larger than the 120 megapixels"),
        refused(
            "too many pixels",
            "many.jpg",
            jpeg_of_size(jpeg(), 65_000, 65_000),
            "larger than the 120 megapixels",
        ),
        refused(
            "a document or an archive behind the photo",
            "polyglot.jpg",
            jpeg() + archive(),
            "has an archive behind",
        ),
        refused(
            "a document or an archive behind the photo",
            "script.jpg",
            jpeg() + b"<script>alert(1)</script>",
            "has a script behind",
        ),
    ]


def _damaged_png() -> bytes:
    data = bytearray(saved(picture(), "PNG"))
    at = data.index(b"IDAT") + 6
    data[at : at + 8] = b"\xff" * 8
    return bytes(data)


def _commented(data: bytes, name: str) -> bytes:
    """A JPEG with its file's name in a comment; anything else as it is."""
    if not data.startswith(b"\xff\xd8\xff"):
        return data
    words = name.encode()
    return data[:2] + b"\xff\xfe" + struct.pack(">H", len(words) + 2) + words + data[2:]


def large() -> bytes:
    """More bytes than MAX_PHOTO_BYTES allows, in a photo that is whole."""
    return saved(Image.effect_noise((5_000, 4_200), 200), "PNG", compress_level=0)

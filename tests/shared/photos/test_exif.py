"""EXIF as cameras, phones and programs leave it: what is believed, and what is not."""

from __future__ import annotations

import random
import struct
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from sandbox.heic import heic
from shared.photos.facts import PhotoFacts, Position
from shared.retry.errors import PermanentError
from tests.shared.photos.pictures import Entry, jpeg, picture, rationals, saved, short, text, tiff
from tests.shared.photos.reading import read_facts

if TYPE_CHECKING:
    from pathlib import Path

NOW: Final = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
SEEWEN: Final = Position(latitude=47.0252, longitude=8.6321)
LATITUDE, LONGITUDE = ((47, 1), (1, 1), (3072, 100)), ((8, 1), (37, 1), (5556, 100))


def facts(block: bytes) -> PhotoFacts:
    """The facts of a JPEG with this EXIF."""
    return read_facts(jpeg(exif=block), now=NOW)


def position(*gps: Entry, order: str = ">") -> Position | None:
    """The position a GPS directory gives."""
    return facts(tiff(gps=gps, order=order)).position


@pytest.mark.parametrize("order", [">", "<"])
def test_everything_a_phone_writes_is_read(order: str) -> None:
    block = tiff(
        main=[text(0x010F, "Google"), text(0x0110, "Pixel 8"), short(0x0112, 6, order)],
        detail=[text(0x9003, "2024:05:12 14:33:22"), text(0x9011, "+02:00")],
        gps=[
            text(1, "N"),
            rationals(2, *LATITUDE, order=order),
            text(3, "E"),
            rationals(4, *LONGITUDE, order=order),
            (5, 1, 1, b"\0"),
            rationals(6, (4612, 10), order=order),
        ],
        order=order,
    )
    assert facts(block) == PhotoFacts(
        taken_at="2024-05-12T14:33:22+02:00",
        camera="Google Pixel 8",
        orientation=6,
        position=Position(latitude=47.0252, longitude=8.6321, altitude=461.2),
    )


@pytest.mark.parametrize(
    ("written", "offset", "read"),
    [
        ("2024:05:12 14:33:22", None, "2024-05-12T14:33:22"),
        ("2024:05:12 14:33:22", "+02:00", "2024-05-12T14:33:22+02:00"),
        ("2024:05:12 14:33:22", "-0430", "2024-05-12T14:33:22-04:30"),
        ("2024:05:12 14:33:22", "Z", "2024-05-12T14:33:22+00:00"),
        ("2024:05:12 14:33:22", "   :  ", "2024-05-12T14:33:22"),
        ("2024:05:12 14:33:22", "+99:99", "2024-05-12T14:33:22"),
        ("2024:05:12 14:33:22.5+02:00", None, "2024-05-12T14:33:22+02:00"),
        ("2024-05-12T14:33:22Z", None, "2024-05-12T14:33:22+00:00"),
        ("2024/5/12 4:03", None, "2024-05-12T04:03:00"),
        ("2024:05:12  14:33:22\0\0\0", None, "2024-05-12T14:33:22"),
        ("1990:01:01 00:00:00", None, "1990-01-01T00:00:00"),
        ("1989:12:31 23:59:59", None, None),
        ("0000:00:00 00:00:00", None, None),
        ("    :  :     :  :  ", None, None),
        ("2024:02:30 10:00:00", None, None),
        ("2024:05:12", None, None),
        ("9999:99:99 99:99:99", "+14:00", None),
        ("9999:12:31 23:59:59", "-12:00", None),
        ("0001:01:01 00:00:00", "+14:00", None),
        # NOW is 12:00 UTC: where it is 02:00 of the next day, this photo can have been taken.
        ("2026:05:02 01:59:00", None, "2026-05-02T01:59:00"),
        ("2026:05:02 02:01:00", None, None),
        ("2026:05:01 14:01:00", "+02:00", None),
        ("2026:05:01 13:59:00", "+02:00", "2026-05-01T13:59:00+02:00"),
        ("gestern", None, None),
    ],
)
def test_dates_are_read_in_every_notation_and_only_believed_when_possible(
    written: str, offset: str | None, read: str | None
) -> None:
    zone = [text(0x9011, offset)] if offset else []
    assert facts(tiff(detail=[text(0x9003, written), *zone])).taken_at == read


def test_an_impossible_date_gives_way_to_the_date_of_digitisation() -> None:
    block = tiff(detail=[text(0x9003, "2107:01:01 00:00:00"), text(0x9004, "2024:05:12 14:33:22")])
    assert facts(block).taken_at == "2024-05-12T14:33:22"


def test_the_date_of_the_last_change_is_no_date_of_a_photo() -> None:
    assert facts(tiff(main=[text(0x0132, "2024:05:12 14:33:22")])).taken_at is None


@pytest.mark.parametrize(
    "gps",
    [
        [text(1, "N"), rationals(2, *LATITUDE), text(3, "E"), rationals(4, *LONGITUDE)],
        # degrees and decimal minutes
        [
            text(1, "N"),
            rationals(2, (47, 1), (1512, 1000)),
            text(3, "E"),
            rationals(4, (8, 1), (37926, 1000)),
        ],
        # … with seconds that say nothing
        [
            text(1, "N"),
            rationals(2, (47, 1), (1512, 1000), (0, 0)),
            text(3, "E"),
            rationals(4, (8, 1), (37926, 1000), (0, 0)),
        ],
        # decimal degrees alone, and followed by zeros
        [text(1, "N"), rationals(2, (470252, 10_000)), text(3, "E"), rationals(4, (86321, 10_000))],
        [
            text(1, "n"),
            rationals(2, (470252, 10_000), (0, 1), (0, 1)),
            text(3, "East"),
            rationals(4, (86321, 10_000), (0, 1), (0, 1)),
        ],
        # signed fractions, floating point
        [text(1, "N"), rationals(2, *LATITUDE, kind=10), text(3, "E"), rationals(4, *LONGITUDE, kind=10)],
        [
            text(1, "N"),
            (2, 12, 1, struct.pack(">d", 47.0252)),
            text(3, "E"),
            (4, 12, 1, struct.pack(">d", 8.6321)),
        ],
        # text, with and without the hemisphere in it
        [text(1, "N"), text(2, "47.0252"), text(3, "E"), text(4, "8.6321")],
        [text(2, "47° 1' 30.72\" N"), text(4, "8° 37' 55.56\" E")],
        [text(2, "47,1.512N"), text(4, "8,37.926E")],
    ],
)
def test_a_position_is_read_in_every_notation(gps: list[Entry]) -> None:
    found = position(*gps)
    assert found is not None
    assert found.latitude == pytest.approx(SEEWEN.latitude, abs=1e-6)
    assert found.longitude == pytest.approx(SEEWEN.longitude, abs=1e-6)
    assert found.text == "47.0252, 8.6321"


@pytest.mark.parametrize(
    ("north", "east", "expected"),
    [("S", "W", (-1, -1)), ("s", "e", (-1, 1)), ("N", "W", (1, -1))],
)
def test_the_hemisphere_gives_the_sign(north: str, east: str, expected: tuple[int, int]) -> None:
    found = position(text(1, north), rationals(2, (47, 1)), text(3, east), rationals(4, (8, 1)))
    assert found == Position(latitude=47 * expected[0], longitude=8 * expected[1])


@pytest.mark.parametrize(
    "gps",
    [
        [],
        [rationals(2, *LATITUDE), rationals(4, *LONGITUDE)],  # no hemispheres: half a position
        [text(1, "N"), rationals(2, *LATITUDE)],
        [text(1, "N"), rationals(2, (0, 0), (0, 0), (0, 0)), text(3, "E"), rationals(4, *LONGITUDE)],
        [text(1, "N"), rationals(2, (91, 1)), text(3, "E"), rationals(4, *LONGITUDE)],
        [text(1, "N"), rationals(2, (47, 1), (99, 1), (0, 1)), text(3, "E"), rationals(4, *LONGITUDE)],
        [text(1, "X"), rationals(2, *LATITUDE), text(3, "E"), rationals(4, *LONGITUDE)],
        [
            text(1, "N"),
            rationals(2, (0, 1), (0, 1), (0, 1)),
            text(3, "E"),
            rationals(4, (0, 1), (0, 1), (0, 1)),
        ],
        [text(1, "N"), text(2, "unbekannt"), text(3, "E"), text(4, "unbekannt")],
        [text(1, "N"), (2, 12, 1, struct.pack(">d", float("nan"))), text(3, "E"), rationals(4, *LONGITUDE)],
        [text(1, "N"), (2, 5, 9, bytes(8)), text(3, "E"), rationals(4, *LONGITUDE)],
    ],
)
def test_a_position_that_is_not_whole_is_none(gps: list[Entry]) -> None:
    assert position(*gps) is None


@pytest.mark.parametrize(
    ("metres", "below", "read"),
    [((461, 1), 0, 461.0), ((12, 1), 1, -12.0), ((461, 0), 0, None), ((60_000, 1), 0, None)],
)
def test_an_altitude_is_read_if_it_is_one(metres: tuple[int, int], below: int, read: float | None) -> None:
    found = position(
        text(1, "N"),
        rationals(2, *LATITUDE),
        text(3, "E"),
        rationals(4, *LONGITUDE),
        (5, 1, 1, bytes([below])),
        rationals(6, metres),
    )
    assert found is not None
    assert found.altitude == read


@pytest.mark.parametrize(
    ("make", "model", "name"),
    [
        ("Canon", "Canon EOS 80D", "Canon EOS 80D"),
        ("NIKON CORPORATION", "NIKON D750", "NIKON D750"),
        ("Apple\0junk", "iPhone 14\0", "Apple iPhone 14"),
        ("", "DSC", "DSC"),
        ("  ", "", None),
        (b"Gr\xfcn", "\x1b[31mrot", "Grün [31mrot"),
    ],
)
def test_a_camera_has_one_clean_name(make: str | bytes, model: str, name: str | None) -> None:
    assert facts(tiff(main=[text(0x010F, make), text(0x0110, model)])).camera == name


@pytest.mark.parametrize(("written", "read"), [(0, 1), (1, 1), (6, 6), (8, 8), (9, 1), (65_535, 1)])
def test_an_orientation_that_does_not_exist_is_upright(written: int, read: int) -> None:
    assert facts(tiff(main=[short(0x0112, written)])).orientation == read


def test_a_broken_entry_does_not_take_the_others_with_it() -> None:
    block = tiff(
        main=[
            (0x010E, 2, 0xFFFF_FFFF, b"\xff\xff\xff\xff"),
            (0x0111, 99, 1, b"????"),
            (0x011A, 5, 1, struct.pack(">II", 1, 0)),
            text(0x0110, "Pixel 8"),
        ],
        detail=[(0x829A, 5, 4_000_000_000, bytes(8)), text(0x9003, "2024:05:12 14:33:22")],
        gps=[(0x0002, 7, 0, b""), text(1, "N")],
    )
    assert facts(block) == PhotoFacts(taken_at="2024-05-12T14:33:22", camera="Pixel 8")


@pytest.mark.parametrize(
    "block",
    [
        b"MM\0*",
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"no tiff at all",
        # a directory that points to itself
        b"MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\0",
    ],
)
def test_broken_exif_is_no_exif(block: bytes) -> None:
    assert facts(block) == PhotoFacts()


def test_no_exif_is_no_facts() -> None:
    assert read_facts(jpeg()) == PhotoFacts()


def test_mutilated_exif_never_fails_a_photo() -> None:
    draw = random.Random(7)
    whole = tiff(
        main=[text(0x010F, "Google"), text(0x0110, "Pixel 8"), short(0x0112, 6)],
        detail=[text(0x9003, "2024:05:12 14:33:22"), text(0x9011, "+02:00")],
        gps=[text(1, "N"), rationals(2, *LATITUDE), text(3, "E"), rationals(4, *LONGITUDE)],
    )
    for _ in range(2_000):
        block = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            block[draw.randrange(len(block))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        found = facts(bytes(block[: draw.randint(0, len(block))]))
        assert msgspec.json.decode(msgspec.json.encode(found), type=PhotoFacts) == found


BLOCK: Final = tiff(main=[short(0x0112, 6)], detail=[text(0x9003, "2024:05:12 14:33:22")])
IN_PLACE: Final = PhotoFacts(taken_at="2024-05-12T14:33:22", orientation=6)


def test_exif_is_found_in_a_png_before_the_pixels() -> None:
    assert read_facts(saved(picture(), "PNG", exif=b"Exif\0\0" + BLOCK)) == IN_PLACE


def test_exif_is_found_in_a_png_behind_the_pixels() -> None:
    chunk = b"eXIf" + BLOCK
    chunk = struct.pack(">I", len(BLOCK)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    assert read_facts(saved(picture(), "PNG")[:-12] + chunk + saved(picture(), "PNG")[-12:]) == IN_PLACE


def test_exif_is_found_in_a_png_of_older_programs() -> None:
    body = b"Exif\0\0" + BLOCK
    lines = f"\nexif\n{len(body):8}\n{body.hex()}\n".encode()
    chunk = b"zTXtRaw profile type exif\0\0" + zlib.compress(lines)
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = saved(picture(), "PNG")
    assert read_facts(data[:33] + chunk + data[33:]) == IN_PLACE


@pytest.mark.parametrize("marker", [b"", b"Exif\0\0"])
def test_exif_is_found_in_a_webp_with_and_without_its_marker(marker: bytes) -> None:
    assert read_facts(saved(picture(), "WEBP", exif=marker + BLOCK)) == IN_PLACE


def test_a_heic_has_its_facts_and_is_already_upright() -> None:
    block = tiff(
        main=[short(0x0112, 6), text(0x0110, "iPhone 14")],
        gps=[text(1, "N"), rationals(2, *LATITUDE), text(3, "E"), rationals(4, *LONGITUDE)],
    )
    assert read_facts(heic(picture(), exif=block, quarter_turns=3)) == PhotoFacts(
        camera="iPhone 14", orientation=1, position=SEEWEN
    )


def test_facts_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "photo"
    path.write_bytes(jpeg(exif=BLOCK))
    assert read_facts(path) == IN_PLACE


def test_what_is_no_photo_has_no_facts() -> None:
    with pytest.raises(PermanentError, match="a text file"):
        read_facts(b"Bilder folgen")


def test_the_offset_is_that_of_the_date_it_belongs_to() -> None:
    """photostructure/exiftool-vendored.js issue 220: OffsetTime is the last change's, an export in winter."""
    block = tiff(
        detail=[text(0x9003, "2024:07:12 23:33:22"), text(0x9010, "+01:00"), text(0x9011, "+02:00")],
    )
    assert facts(block).taken_at == "2024-07-12T23:33:22+02:00"


def test_an_offset_without_its_leading_zero_is_read() -> None:
    """bpatrik/pigallery2 issue 1128: a phone writes -5:00."""
    block = tiff(detail=[text(0x9003, "2024:07:12 23:33:22"), text(0x9011, "-5:00")])
    assert facts(block).taken_at == "2024-07-12T23:33:22-05:00"

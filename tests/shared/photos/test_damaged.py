"""What is whole goes through, however odd; what is damaged is refused, however it is hidden."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable  # noqa: TC003 - pytest looks at the annotations
from functools import cache
from typing import TYPE_CHECKING, Final

import pytest
from PIL import Image, ImageChops, ImageStat

from sandbox.heic import heic
from shared.photos.exif import facts_of
from shared.photos.open import opened
from shared.photos.preview import make_preview
from shared.photos.whole import ensure_whole
from shared.retry.errors import PermanentError
from tests.shared.photos.bombs import chunk, exif_loop
from tests.shared.photos.pictures import jpeg, saved, short, text, tiff

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE: Final = (900, 600)
_draw = random.Random(1)


@cache
def scene() -> Image.Image:
    """Coloured rectangles, hundreds of them, so that every part of the file counts."""
    image = Image.new("RGB", SIZE, (120, 150, 190))
    for _ in range(400):
        left, top = _draw.randrange(900), _draw.randrange(600)
        box = (left, top, left + _draw.randrange(5, 120), top + _draw.randrange(5, 90))
        image.paste(tuple(_draw.randrange(256) for _ in range(3)), box)
    return image


def plain(*, progressive: bool = False) -> bytes:
    return saved(scene(), quality=85, progressive=progressive)


def scan_of(data: bytes) -> int:
    """Where the first scan's data starts."""
    start = data.index(b"\xff\xda")
    return start + 2 + int.from_bytes(data[start + 2 : start + 4])


def film(size: int) -> bytes:
    """What a phone writes behind a motion photo: bytes like those of a film, FF DA and FF D9 among them."""
    body = random.Random(size).randbytes(size)
    return b"MotionPhoto_Data" + struct.pack(">I", 24) + b"ftypmp42\0\0\0\0isommp42" + body


def before(marker: int, junk: bytes, data: bytes) -> bytes:
    """Junk before the first segment of that kind."""
    at = data.index(bytes([0xFF, marker]))
    return data[:at] + junk + data[at:]


def old_jfif(data: bytes) -> bytes:
    """A revision of JFIF that does not exist."""
    at = data.index(b"JFIF\0") + 5
    return data[:at] + b"\x05\x07" + data[at + 2 :]


def scan_parameters(data: bytes) -> bytes:
    """Zeros in the three bytes of a scan's header that mean something in progressive JPEGs alone."""
    at = scan_of(data) - 3
    return data[:at] + bytes(3) + data[at + 3 :]


def png_with_text(keyword: str) -> bytes:
    data = saved(scene(), "PNG")
    return data[:33] + chunk(b"tEXt", keyword.encode("latin-1") + b"\x0012") + data[33:]


WHOLE: Final[Mapping[str, Callable[[], bytes]]] = {
    "a film of 8 MB behind it": lambda: plain() + film(8_000_000),
    "a film behind a progressive one": lambda: plain(progressive=True) + film(8_000_000),
    "junk in the header": lambda: before(0xDB, b"hello", plain()),
    "junk in a progressive header": lambda: before(
        0xDB, b"\x01\x02\x03\x04\x05\x06\x07", plain(progressive=True)
    ),
    "junk with markers in it": lambda: before(0xDB, b"\0\xff\0\xff\xff", plain()),
    "no end marker": lambda: plain()[:-2],
    "no end marker, progressive": lambda: plain(progressive=True)[:-2],
    "no end marker, and a trailer": lambda: plain()[:-2] + b"\0\0\1\x0a\x08\0\0\0PanoramaSEFT" + b"A" * 400,
    "zeros before the end marker": lambda: plain()[:-2] + bytes(64) + plain()[-2:],
    "a revision of JFIF that does not exist": lambda: old_jfif(plain()),
    "odd parameters of the scan": lambda: scan_parameters(plain()),
    "PNG, a keyword in Latin-1": lambda: png_with_text("Größe"),
    "PNG, no end": lambda: saved(scene(), "PNG")[:-12],
    "PNG, half of its end": lambda: saved(scene(), "PNG")[:-5],
    "PNG, bytes behind it": lambda: saved(scene(), "PNG") + bytes(100),
    "HEIC, zeros behind it": lambda: heic(scene()) + bytes(1_000),
    "HEIC, random bytes behind it": lambda: heic(scene()) + random.Random(7).randbytes(2_000),
    "HEIC, a maker's trailer behind it": lambda: (
        heic(scene()) + b"\0\0\1\x0a\x0e\0\0\0Image_UTC_Data1715522602000SEFH\x6b\0\0\0\1\0\0\0SEFT"
    ),
    "WebP, with EXIF": lambda: saved(scene(), "WEBP", exif=b"Exif\0\0" + tiff(main=[text(0x0110, "X1")])),
}


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE.keys())
def test_an_odd_photo_with_all_its_pixels_is_whole(make: Callable[[], bytes]) -> None:
    data = make()
    with opened(data) as photo:
        ensure_whole(photo)
        facts_of(photo)
    shown = Image.open(io.BytesIO(make_preview(data, quality=95))).convert("RGB")
    assert shown.size == SIZE
    assert max(ImageStat.Stat(ImageChops.difference(shown, scene())).mean) < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_page_that_hides_behind_a_photo_without_an_end_is_found(kind: str) -> None:
    whole = saved(scene(), kind)
    without_end = whole[:-2] if kind == "JPEG" else whole[:-12]
    page = b"<html><script>alert(1)</script></html>"
    with opened(without_end + page) as photo, pytest.raises(PermanentError):
        ensure_whole(photo)


def cut(share: float, *, progressive: bool = False) -> bytes:
    """Cut off in its scan, with an end marker behind it."""
    data = plain(progressive=progressive)
    start = scan_of(data)
    return data[: start + int((len(data) - start) * share)] + b"\xff\xd9"


def marked(marker: int, *, progressive: bool = False) -> bytes:
    """A marker in the middle of the scan."""
    data = plain(progressive=progressive)
    at = (scan_of(data) + len(data)) // 2
    return data[:at] + bytes([0xFF, marker]) + data[at:]


def without_last_scans(count: int) -> bytes:
    """A progressive photo cut off exactly between two scans."""
    data = plain(progressive=True)
    end = len(data)
    for _ in range(count):
        end = data.rindex(b"\xff\xda", 0, end)
    return data[:end] + b"\xff\xd9"


def zeroed(data: bytes, start: float, size: int) -> bytes:
    """A block of a file that was lost on its way."""
    at = int(len(data) * start)
    return data[:at] + bytes(size) + data[at + size :]


def half_a_png() -> bytes:
    data = saved(scene(), "PNG")
    rows = zlib.decompress(
        b"".join(
            data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at])]
            for at in range(len(data))
            if data[at : at + 4] == b"IDAT"
        )
    )
    return data[:33] + chunk(b"IDAT", zlib.compress(rows[: len(rows) // 2])) + chunk(b"IEND", b"")


def flipped_png() -> bytes:
    data = bytearray(saved(scene(), "PNG"))
    data[len(data) // 2] ^= 0x55
    return bytes(data)


def short_webp() -> bytes:
    data = saved(scene(), "WEBP", quality=80)
    half = data[: len(data) // 2]
    return data[:4] + struct.pack("<I", len(half) - 8) + half[8:]


DAMAGED: Final[Mapping[str, Callable[[], bytes]]] = {
    "cut at 40 % with an end marker": lambda: cut(0.4),
    "cut at 95 % with an end marker": lambda: cut(0.95),
    "cut at 40 % with an end marker, junk in the header": lambda: before(0xDB, b"hello", cut(0.4)),
    "cut at 40 % with an end marker, progressive": lambda: cut(0.4, progressive=True),
    "without its last pass": lambda: without_last_scans(1),
    "with its first pass alone": lambda: without_last_scans(9),
    "a start marker in its scan": lambda: marked(0xD8),
    "an end marker in its scan": lambda: marked(0xD9),
    "a start marker in a progressive scan": lambda: marked(0xD8, progressive=True),
    "cut at 40 %": lambda: cut(0.4)[:-2],
    "half the rows of a PNG": half_a_png,
    "a flipped byte in a PNG": flipped_png,
    "half a WebP": short_webp,
    "a zeroed block in a HEIC": lambda: zeroed(heic(scene()), 0.5, 4096),
    "a zeroed block in a HEIC in tiles": lambda: zeroed(heic(scene(), tile=256), 0.5, 4096),
}


def seen(data: bytes) -> None:
    """All that the agents do with a photo."""
    with opened(data) as photo:
        ensure_whole(photo)
    make_preview(data)


@pytest.mark.parametrize("make", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_photo_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(PermanentError, match=r"^the \w+ photo is (damaged|cut off)"):
        seen(make())


def test_no_error_of_another_photo_is_quoted() -> None:
    with pytest.raises(PermanentError) as caught:
        make_preview(cut(0.4))
    assert "premature end" in str(caught.value)
    # warnings of a photo that goes through are none of the next one's
    make_preview(plain()[:-2] + bytes(64) + plain()[-2:])
    with pytest.raises(PermanentError) as caught:
        make_preview(b"\xff\xd8\xff\xe0\0\4ab" + b"\xff\xd9")
    assert str(caught.value) == (
        "the JPEG photo is damaged and cannot be decoded (no picture in its header): send it again"
    )


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_that_points_at_itself_costs_nothing(form: str) -> None:
    data = exif_loop(form)
    with opened(data) as photo:
        assert facts_of(photo).camera is None
    make_preview(data)


def test_a_heic_without_a_turn_of_its_own_is_turned_by_its_exif() -> None:
    wide = Image.new("RGB", (64, 32), "red")
    exif = tiff(main=[short(0x0112, 6)])
    for quarter_turns, orientation, size in ((None, 6, (32, 64)), (0, 1, (64, 32)), (1, 1, (32, 64))):
        data = heic(wide, exif=exif, quarter_turns=quarter_turns)
        with opened(data) as photo:
            assert facts_of(photo).orientation == orientation
        assert Image.open(io.BytesIO(make_preview(data))).size == size


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2024:05:12 02:03:22 PM", "2024-05-12T14:03:22"),
        ("2024:05:12 12:03 am", "2024-05-12T00:03:00"),
        ("2024: 5:12 14: 3: 2", "2024-05-12T14:03:02"),
        ("2024:05:12 14:03:22 PM", None),
    ],
)
def test_dates_of_twelve_hours_and_with_blanks_are_read(written: str, read: str | None) -> None:
    with opened(jpeg(tiff(detail=[text(0x9003, written)]))) as photo:
        assert facts_of(photo).taken_at == read

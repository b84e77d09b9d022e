"""What is a photo, what is none, and that finding out costs little."""

from __future__ import annotations

import errno
import io
import random
import re
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest
import pyvips
from PIL import Image

from sandbox.heic import heic
from shared.photos.exif import facts_of
from shared.photos.kinds import HEIC, JPEG, PNG, WEBP, PhotoKind
from shared.photos.open import opened
from shared.photos.preview import make_preview
from shared.photos.whole import ensure_whole
from shared.retry.errors import PermanentError
from tests.shared.photos.pictures import jpeg, picture, saved, text, tiff

if TYPE_CHECKING:
    from shared.photos.facts import PhotoHeader


def header_of(data: bytes, name: str | None = None) -> PhotoHeader:
    """What the fetcher does first with every file."""
    with opened(data, name=name) as photo:
        ensure_whole(photo, name=name)
        return photo.header


def mpo() -> bytes:
    """Two pictures in one file; the second one larger."""
    return saved(picture(), "MPO", save_all=True, append_images=[picture(96, 64, "L").convert("RGB")])


def png_header(width: int, height: int, interlaced: int = 0) -> bytes:
    """A PNG that claims a size and has almost nothing behind it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced))
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def jpeg_of_size(data: bytes, width: int, height: int) -> bytes:
    """The same JPEG claiming another size."""
    changed, number = re.subn(
        rb"(\xff[\xc0\xc2]\x00\x11\x08)....",
        lambda found: found[1] + struct.pack(">HH", height, width),
        data,
        flags=re.DOTALL,
    )
    assert number == 1
    return changed


def webp_canvas(width: int, height: int) -> bytes:
    """An extended WebP that claims a canvas."""
    body = b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(body)) + body


def interlaced_png(width: int, height: int) -> bytes:
    """An interlaced PNG in one colour, with transparency."""
    image = pyvips.Image.black(width, height, bands=4).linear([1], [96, 160, 48, 128]).cast("uchar")
    return bytes(image.copy(interpretation="srgb").pngsave_buffer(compression=1, interlace=True))


def repeated_heic(width: int, height: int, quarter_turns: int = 0) -> bytes:
    """A HEIC in tiles of 512, as phones write them, all of them the same: of any size, and quickly made."""
    tile = Image.effect_noise((512, 512), 60).convert("RGB")
    return heic(tile, repeat=(width, height), tile=512, quarter_turns=quarter_turns)


def archive() -> bytes:
    """A ZIP archive."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("run.sh", "#!/bin/sh\n")
    return target.getvalue()


GOOD = {
    "jpeg": (jpeg(), JPEG, (48, 32)),
    "jpeg, progressive": (saved(picture(), progressive=True), JPEG, (48, 32)),
    "jpeg, grey": (saved(picture(mode="L")), JPEG, (48, 32)),
    "jpeg, four inks": (saved(picture(mode="CMYK")), JPEG, (48, 32)),
    "jpeg with a film behind it": (jpeg() + b"\0\0\0\x18ftypmp42" + bytes(500), JPEG, (48, 32)),
    "two pictures (MPO)": (mpo(), JPEG, (48, 32)),
    "png": (saved(picture(), "PNG"), PNG, (48, 32)),
    "png, 16-bit grey": (saved(Image.new("I;16", (48, 32), 40_000), "PNG"), PNG, (48, 32)),
    "png, transparent": (saved(picture(mode="RGBA"), "PNG"), PNG, (48, 32)),
    "png, palette": (saved(picture().quantize(8), "PNG"), PNG, (48, 32)),
    "png, one bit": (saved(picture(mode="1"), "PNG"), PNG, (48, 32)),
    "webp": (saved(picture(), "WEBP"), WEBP, (48, 32)),
    "webp, lossless and transparent": (saved(picture(mode="RGBA"), "WEBP", lossless=True), WEBP, (48, 32)),
    "heic": (heic(picture()), HEIC, (48, 32)),
    "heic, turned by a quarter": (heic(picture(), quarter_turns=1), HEIC, (32, 48)),
    "heic, in tiles": (heic(picture(), tile=16, quarter_turns=1), HEIC, (32, 48)),
}


@pytest.mark.parametrize(("data", "kind", "size"), GOOD.values(), ids=GOOD.keys())
def test_the_kind_is_told_by_the_content_whatever_the_name_says(
    data: bytes, kind: PhotoKind, size: tuple[int, int]
) -> None:
    header = header_of(data, "document.pdf")
    assert (header.media_type, header.extension) == (kind.media_type, kind.extension)
    assert (header.width, header.height) == size


NO_PHOTOS = {
    "an HTML page": b"\r\n<!DOCTYPE html><html><body>Anmeldung</body></html>",
    "an XML document": b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>',
    "an SVG drawing": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    "a JSON document": b'{"error": "itemNotFound"}',
    "a text file": b"Bilder folgen\n",
    "a PDF document": b"%PDF-1.7\n",
    "a ZIP archive or an Office document": archive(),
    "a gzip archive": b"\x1f\x8b\x08" + bytes(20),
    "a GIF image": saved(picture(), "GIF"),
    "a TIFF or raw image": saved(picture(), "TIFF"),
    "a BMP image": saved(picture(), "BMP"),
    "an AVIF image": b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(30),
    "a video": b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(30),
    "nothing but zero bytes": bytes(5000),
    "of an unknown kind": bytes(range(128, 256)),
}


@pytest.mark.parametrize(("words", "data"), NO_PHOTOS.items(), ids=NO_PHOTOS.keys())
def test_what_is_no_photo_is_called_by_its_name(words: str, data: bytes) -> None:
    with pytest.raises(PermanentError) as caught:
        header_of(data, "photo.jpg")
    assert (
        str(caught.value) == f"the file is {words}, not a photo (named photo.jpg): check the source address"
    )


def test_an_empty_file_is_called_empty() -> None:
    with pytest.raises(PermanentError, match=r"^the file \(named IMG_1\.JPG\) is empty \(0 bytes\): "):
        header_of(b"", "IMG_1.JPG")


def test_a_name_cannot_break_the_sentence() -> None:
    with pytest.raises(PermanentError) as caught:
        header_of(b"", "\x1b[31m\u202egpj.\n" + "x" * 500)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\u202e" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["jpeg", "jpeg, progressive", "png", "webp", "heic"])
def test_a_photo_cut_off_anywhere_is_refused(name: str, share: float) -> None:
    data = GOOD[name][0]
    with pytest.raises(PermanentError, match=r"photo.* is (cut off after [\d,]+ bytes|damaged)"):
        header_of(data[: int(len(data) * share)])


def test_the_end_of_a_thumbnail_is_not_taken_for_the_end_of_the_photo() -> None:
    # An EXIF thumbnail is a JPEG of its own, with an end marker of its own.
    whole = jpeg(exif=tiff([text(0x010E, jpeg(), kind=7)]))
    with pytest.raises(PermanentError, match="cut off"):
        header_of(whole[:-40])


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize(
    ("behind", "words"),
    [
        (archive(), "an archive"),
        (b"\n<HTML><body onload=...>", "an HTML page"),
        (b"<script>alert(1)</script>", "a script"),
        (b"%PDF-1.7 ...", "a PDF document"),
    ],
)
def test_a_photo_that_is_something_else_as_well_is_refused(kind: str, behind: bytes, words: str) -> None:
    with pytest.raises(PermanentError, match=f"has {words} behind its last pixel"):
        header_of(GOOD[kind][0] + behind)


@pytest.mark.parametrize(
    ("data", "limit"),
    [
        (png_header(50_000, 50_000), 120),
        (png_header(12_000, 10_001), 120),
        (png_header(6_400, 6_400, interlaced=1), 40),
        (jpeg_of_size(jpeg(), 65_000, 65_000), 120),
        (jpeg_of_size(saved(picture(), progressive=True), 9_000, 6_000), 48),
        (webp_canvas(1 << 24, 1 << 24), 40),
        (webp_canvas(10_000, 10_000), 40),
        (GOOD["heic"][0].replace(struct.pack(">II", 48, 32), struct.pack(">II", 30_000, 30_000)), 120),
        (GOOD["heic"][0].replace(struct.pack(">II", 48, 32), struct.pack(">II", 6_000, 6_000)), 25),
    ],
)
def test_too_many_pixels_are_refused_by_the_header(data: bytes, limit: int) -> None:
    with pytest.raises(PermanentError, match=f"larger than the {limit} megapixels") as caught:
        header_of(data)
    assert "make it smaller" in str(caught.value)


def test_rows_too_long_are_refused_by_the_header() -> None:
    with pytest.raises(PermanentError, match="30,000 pixels wide, more than the 21,845 that are decoded"):
        header_of(png_header(30_000, 100))


def test_a_jpeg_of_one_scan_may_be_larger_than_a_progressive_one() -> None:
    assert header_of(jpeg_of_size(jpeg(), 11_648, 8_736)).width == 11_648


def test_a_jpeg_whose_colours_come_in_scans_of_their_own_counts_as_progressive() -> None:
    data = jpeg_of_size(jpeg(), 9_000, 6_000)
    one_component = re.sub(rb"\xff\xda\x00\x0c\x03", b"\xff\xda\x00\x08\x01", data)
    with pytest.raises(PermanentError, match="24 megapixels"):
        header_of(one_component)


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_keeps_a_core_busy() -> None:
    data = saved(picture(), progressive=True)
    scan = data.rfind(b"\xff\xda")
    with pytest.raises(PermanentError, match="more than 100 passes"):
        header_of(data[:-2] + data[scan:-2] * 200 + data[-2:])


def test_an_error_of_this_machine_is_not_the_photos_fault() -> None:
    with pytest.raises(OSError, match="No space left") as caught, opened(jpeg()):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    "name", ["jpeg", "jpeg, progressive", "png, palette", "webp", "heic", "heic, in tiles"]
)
def test_damaged_bytes_end_as_a_sentence_or_as_a_picture(name: str) -> None:
    draw = random.Random(name)
    whole = GOOD[name][0]
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        if draw.random() < 0.3:
            del data[draw.randrange(len(data)) :]
        try:
            with opened(bytes(data)) as photo:
                facts_of(photo)
            make_preview(bytes(data))
        except PermanentError as error:
            refused += 1
            assert str(error).startswith("the ")  # noqa: PT017  # either outcome is right
    assert refused > 10

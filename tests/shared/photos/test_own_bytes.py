"""A decoder gets a picture's own bytes, and a large photo is not copied for that."""

from __future__ import annotations

import io
import mmap
import tempfile
import zipfile
import zlib
from typing import TYPE_CHECKING, Final

import pytest

from shared.photos.open import opened
from shared.photos.own_bytes import framed
from shared.photos.preview import make_preview
from shared.photos.whole import ensure_whole
from shared.retry.errors import PermanentError
from tests.shared.photos.pictures import picture, saved, text, tiff

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCK: Final = tiff([text(0x010F, "Acme")])


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


def photos() -> Mapping[str, bytes]:
    """Photos with something that the decoder does not get, before, between and behind the pixels."""
    image = picture(640, 480)
    png = saved(image, "PNG")
    iend = len(png) - 12
    comment, junk = png_chunk(b"tEXt", b"a\0b"), png_chunk(b"eXIf", BLOCK)
    return {
        "jpeg": saved(image, exif=b"Exif\0\0" + BLOCK),
        "jpeg, several passes": saved(image, exif=b"Exif\0\0" + BLOCK, progressive=True),
        "png": png[:33] + junk + comment + png[33:],
        "png, text behind": png[:33] + junk + png[33:iend] + comment + png[iend:] + b"trailer",
        "webp": saved(image, "WEBP", exif=b"Exif\0\0" + BLOCK),
        "webp, exif first": _exif_first(saved(image, "WEBP", exif=b"Exif\0\0" + BLOCK)),
    }


def _exif_first(webp: bytes) -> bytes:
    at = webp.index(b"EXIF")
    return webp[:30] + webp[at:] + webp[30:at]


def mapped(data: bytes, access: int = mmap.ACCESS_COPY) -> mmap.mmap:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return mmap.mmap(file.fileno(), len(data), access=access)


@pytest.mark.parametrize("name", list(photos()))
def test_a_mapped_photo_is_decoded_where_it_lies(name: str) -> None:
    data = photos()[name]
    mapping = mapped(data)
    with opened(data) as copied, opened(mapping) as photo:
        assert isinstance(photo.pixels, memoryview)
        assert photo.pixels.obj is mapping
        assert bytes(photo.pixels) == bytes(copied.pixels)
        assert len(photo.pixels) <= len(data)
        assert photo.exif == copied.exif
        ensure_whole(photo)
    assert make_preview(mapped(data), 320) == make_preview(data, 320)


@pytest.mark.parametrize("name", list(photos()))
def test_a_mapping_that_cannot_be_changed_is_copied(name: str) -> None:
    data = photos()[name]
    mapping = mapped(data, mmap.ACCESS_READ)
    assert make_preview(mapping, 320) == make_preview(data, 320)
    assert mapping[:] == data


def test_an_archive_is_found_although_its_place_was_needed_for_the_picture() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "a")
    png = saved(picture(), "PNG")
    # the directory of the archive lies in the text, over which the header moves
    data = png[:33] + png_chunk(b"tEXt", b"a\0" + archive.getvalue()) + png[33:]
    with pytest.raises(PermanentError, match="has an archive behind"), opened(mapped(data)) as photo:
        ensure_whole(photo)


def test_what_does_not_fit_around_the_pixels_is_copied() -> None:
    mapping = mapped(b"0123456789")
    assert framed(mapping, b"abc", 2, 8) == b"abc234567"
    assert framed(mapping, b"", 2, 10, b"x") == b"23456789x"
    assert mapping[:] == b"0123456789"
    assert bytes(framed(mapping, b"ab", 3, 8, b"c")) == b"ab34567c"

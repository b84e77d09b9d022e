"""Opens a photo that anybody may have sent: recognises its kind and checks its size before decoding.

A file that is no photo of ours always ends as a PermanentError that names what is wrong with it.
"""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, cast

import msgspec
import pyvips

from shared.photos import jpeg, png, webp
from shared.photos.facts import PhotoHeader, called
from shared.photos.heic import HeicPicture, TooManyPartsError, open_heic
from shared.photos.kinds import (
    HEIC,
    HEIC_PIECE_MAX_PIXELS,
    JPEG,
    JPEG_SCANS_MAX_SAMPLES,
    PNG,
    PNG_INTERLACED_MAX_BYTES,
    PNG_ROW_MAX_BYTES,
    WEBP,
    Data,
    PhotoKind,
    describe,
    end_of,
    kind_of,
)
from shared.photos.own_bytes import Pixels
from shared.retry.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO


MAX_SCANS: Final = 100
"""Each scan of a JPEG walks the whole picture again; encoders write about ten, an attacker 100,000."""

# Of the formats that libvips reads, only these. One thread, as one photo is decoded at a time: more processes
# are the way to decode more. No two photos are alike, so nothing decoded is kept.
for _loader, _blocked in (("", True), ("Jpeg", False), ("Png", False), ("Webp", False)):
    pyvips.operation_block_set(f"VipsForeignLoad{_loader}", _blocked)
pyvips.concurrency_set(1)
_LOADERS: Final = {
    JPEG.name: pyvips.Image.jpegload_source,
    PNG.name: pyvips.Image.pngload_source,
    WEBP.name: pyvips.Image.webpload_source,
}
# A warning of libvips that matters is in its error as well.
logging.getLogger("pyvips").setLevel(logging.ERROR)
pyvips.cache_set_max(0)

# What the decoders were seen to raise on broken bytes, an OSError without a number among it.
_BROKEN: Final = (
    pyvips.Error,
    SyntaxError,
    ValueError,
    EOFError,
    RuntimeError,
    LookupError,
    TypeError,
    struct.error,
)
# libvips' and libheif's words; libheif says the same of a limit of its own, which is none of memory.
_OUT_OF_MEMORY: Final = re.compile(
    r"out of memory|bad_alloc|memory allocation error(?!.*security limit)", re.IGNORECASE | re.DOTALL
)
_UNCLEAR: Final = re.compile(r"invalid image index|unable to call")
# Of a JPEG's warnings, those after the last pixel and about the header.
_HARMLESS: Final = re.compile(r"extraneous bytes before marker 0xd9|Adobe color transform")
_JPEG_WARNING: Final = re.compile(r"\AVipsJpeg: (Corrupt JPEG data: )?")
# "unable to call jpegload_buffer", a line, and the name of the operation stand before the cause.
_LIBVIPS: Final = re.compile(r"\Aunable to [\w ]+\s+(?:\w+: )?")


class OpenPhoto(msgspec.Struct, frozen=True, kw_only=True):
    """A photo whose header was read, and whose pixels are not decoded yet."""

    kind: PhotoKind
    header: PhotoHeader
    exif: bytes
    """As the file has it; empty if there is none where it should be."""
    profile: bytes
    """The ICC profile of its colours; empty if there is none."""
    picture: pyvips.Image | HeicPicture
    row_by_row: bool
    """Whether decoding takes little memory, less than 70 MB."""
    data: Data
    pixels: Pixels = b""
    """What the decoder of a JPEG, PNG or WebP gets: the picture without texts, EXIF and what follows."""
    end: int | None = None
    """Where the picture ends in `data`; None if its end is missing."""
    archive: bool = False
    """Whether the file is a ZIP archive as well."""
    turned: bool = False
    """Whether the decoder turns it upright, so that EXIF's orientation does not count."""


def clear_warnings() -> None:
    """Forget what libvips has to say about an earlier photo."""
    pyvips.vips_lib.vips_error_clear()


def ensure_undamaged(photo: OpenPhoto) -> None:
    """Raise ValueError if pixels of a decoded photo were missing or made no sense, so that some are grey.

    libvips' JPEG decoder goes on then, and leaves its first warning behind.
    """
    warnings = pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()).decode(errors="replace")
    clear_warnings()
    if photo.kind is JPEG and warnings and not _HARMLESS.search(warnings):
        raise ValueError(_JPEG_WARNING.sub("", warnings))


@contextmanager
def opened(data: Data, *, name: str | None = None) -> Iterator[OpenPhoto]:
    """Open a photo's bytes; decode inside the block. Raises PermanentError for what is no photo of ours.

    A writable mapping is changed, so it must be a private one: see `shared.photos.own_bytes`.

    `name` is only used in the sentence. Too many pixels are refused by the header alone, an error of
    libvips or libheif inside the block becomes a sentence as well. Raises MemoryError if memory is short.
    """
    shown = called(name)
    clear_warnings()
    kind = kind_of(data)
    if kind is None:
        what = describe(data)
        raise PermanentError(
            f"the file is {what}, not a photo{shown}: check the source address"
            if data
            else f"the file{shown} is {what}: check the source, the photo never arrived there"
        )
    try:
        yield _open_heic(data, shown) if kind is HEIC else _open_with_libvips(data, kind, shown)
    except OSError as error:
        if error.errno is not None:  # a file of the caller's, not the picture
            raise
        raise PermanentError(_damaged(kind, shown, error)) from error
    except _BROKEN as error:
        if _OUT_OF_MEMORY.search(str(error)):
            raise MemoryError from error
        raise PermanentError(_damaged(kind, shown, error)) from error


def _open_heic(data: Data, shown: str) -> OpenPhoto:
    picture = open_heic(data)
    _check_size(HEIC, shown, picture.width, picture.height)
    if picture.piece_pixels > HEIC_PIECE_MAX_PIXELS:
        raise PermanentError(
            _too_large(HEIC, shown, picture.width, picture.height, HEIC_PIECE_MAX_PIXELS)
            + ", or store it in tiles as phones do"
        )
    return OpenPhoto(
        kind=HEIC,
        header=_header(HEIC, picture.width, picture.height),
        exif=picture.exif,
        profile=picture.profile,
        picture=picture,
        row_by_row=False,
        data=data,
        archive=_is_archive(data),
        end=end_of(data, HEIC),
        turned=picture.turned,
    )


def _open_with_libvips(data: Data, kind: PhotoKind, shown: str) -> OpenPhoto:
    # A WebP's canvas would be allocated to read its header.
    if kind is WEBP and data[12:16] == b"VP8X" and len(data) >= 30:
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        _check_size(kind, shown, width, height)
    # From a source: given the bytes themselves, libvips copies them.
    archive = _is_archive(data)
    own = _own_bytes(data, kind, shown)
    image = _LOADERS[kind.name](pyvips.Source.new_from_memory(own.pixels), access="sequential")
    _check_size(kind, shown, image.width, image.height)
    row_by_row = False
    if own.layout is not None:
        row_by_row = not own.layout.buffered
        if own.layout.buffered:
            limit = JPEG_SCANS_MAX_SAMPLES / own.layout.samples
            _check_size(JPEG, shown, image.width, image.height, limit)
            if jpeg.missing_scans(own.scans, own.layout):
                raise ValueError("some of its passes are missing")
    elif kind is PNG:
        row_by_row = _has_short_rows(image, shown)
    return OpenPhoto(
        kind=kind,
        header=_header(kind, image.width, image.height),
        exif=own.exif,
        profile=_blob(image, "icc-profile-data"),
        picture=image,
        row_by_row=row_by_row,
        data=data,
        archive=archive,
        pixels=own.pixels,
        end=own.end,
    )


class _OwnBytes(msgspec.Struct, frozen=True, kw_only=True):
    """A picture's own bytes, taken apart."""

    pixels: Pixels
    exif: bytes
    end: int | None
    layout: jpeg.JpegLayout | None = None
    scans: tuple[bytes, ...] = ()
    """The parameters of each, of a JPEG that has several."""


def _own_bytes(data: Data, kind: PhotoKind, shown: str) -> _OwnBytes:
    """Take apart what decoding needs and what is read here.

    libvips would unfold every text and follow every entry of EXIF, however many there are.
    """
    if kind is PNG:
        chunks = png.layout_of(data)
        return _OwnBytes(pixels=chunks.picture, exif=chunks.exif, end=chunks.end)
    if kind is WEBP:
        exif, at = webp.exif_of(data)
        return _OwnBytes(pixels=webp.picture_of(data, at), exif=exif, end=end_of(data, kind))
    layout = jpeg.layout_of(data)
    if layout is None:
        raise ValueError("no picture in its header")
    scans: tuple[bytes, ...] = ()
    if layout.buffered:
        scans = jpeg.scans_of(data, layout)
        if len(scans) > MAX_SCANS:
            raise PermanentError(
                f"the JPEG photo{shown} is stored in more than {MAX_SCANS} passes, which no camera does:"
                " save it again as a plain JPEG"
            )
    exif = jpeg.exif_of(data, layout)
    # last, because it may put the picture where the EXIF was
    pixels = jpeg.picture_of(data, layout)
    return _OwnBytes(pixels=pixels, exif=exif, end=layout.end, layout=layout, scans=scans)


def _is_archive(data: Data) -> bool:
    # A mapping is read like a file, which copies nothing. In the types of Python 3.11 its `seek` is missing.
    file = io.BytesIO(data) if isinstance(data, bytes) else cast("IO[bytes]", data)
    return zipfile.is_zipfile(file)


def _header(kind: PhotoKind, width: int, height: int) -> PhotoHeader:
    return PhotoHeader(media_type=kind.media_type, extension=kind.extension, width=width, height=height)


def _blob(image: pyvips.Image, name: str) -> bytes:
    return bytes(image.get(name)) if image.get_typeof(name) else b""


def _check_size(kind: PhotoKind, shown: str, width: int, height: int, limit: float = math.inf) -> None:
    """Raise PermanentError for more pixels than the kind's limit, or than a lower one."""
    limit = min(limit, kind.max_pixels)
    if width * height > limit:
        raise PermanentError(_too_large(kind, shown, width, height, limit))


def _has_short_rows(image: pyvips.Image, shown: str) -> bool:
    """Refuse a PNG that is buffered whole and too large for it, or that has rows too long."""
    pixel = image.bands * (1 if image.format == "uchar" else 2)
    interlaced = bool(image.get_typeof("interlaced"))
    if interlaced:
        _check_size(PNG, shown, image.width, image.height, PNG_INTERLACED_MAX_BYTES / pixel)
    if image.width * pixel > PNG_ROW_MAX_BYTES:
        raise PermanentError(
            f"the PNG photo{shown} is {image.width:,} pixels wide, more than the"
            f" {PNG_ROW_MAX_BYTES // pixel:,} that are decoded: make it smaller"
        )
    return not interlaced and image.width * pixel <= PNG_ROW_MAX_BYTES // 2


def _too_large(kind: PhotoKind, shown: str, width: int, height: int, limit: float) -> str:
    return (
        f"the {kind.name} photo{shown} of {width:,} by {height:,} pixels is larger than the"
        f" {limit / 1e6:.0f} megapixels that are decoded: make it smaller"
    )


def _damaged(kind: PhotoKind, shown: str, error: BaseException) -> str:
    cause = _LIBVIPS.sub("", str(error))
    cause = " ".join(cause.split("\n")[0].split())[:200]
    if isinstance(error, TooManyPartsError) or "security limit" in cause.lower():  # libheif's words
        return (
            f"the {kind.name} photo{shown} is stored in more or larger parts than what is decoded:"
            " save it again as a plain JPEG"
        )
    # a sentence of the decoder helps whoever made the file; the name of an exception helps nobody
    why = f" ({cause})" if " " in cause and not _UNCLEAR.search(cause) else ""
    return f"the {kind.name} photo{shown} is damaged and cannot be decoded{why}: send it again"

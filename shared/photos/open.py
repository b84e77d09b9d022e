"""Opens a photo that anybody may have sent: recognises its kind and checks its size before decoding.

A file that is no photo of ours always ends as a PermanentError that names what is wrong with it.
"""

from __future__ import annotations

import asyncio
import io
import logging
import math
import re
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import msgspec
import pyvips

from shared.photos.heic import HeicPicture, open_heic
from shared.photos.jpeg import frame_of
from shared.photos.kinds import (
    HEIC,
    HEIC_PIECE_MAX_PIXELS,
    JPEG,
    JPEG_SCANS_MAX_SAMPLES,
    PNG,
    PNG_INTERLACED_MAX_BYTES,
    PNG_ROW_MAX_BYTES,
    WEBP,
    PhotoKind,
    describe,
    end_of,
    kind_of,
)
from shared.retry.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P = ParamSpec("P")
T = TypeVar("T")

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
    MemoryError,
    struct.error,
)
# "unable to call jpegload_buffer", a line, and the name of the operation stand before the cause.
_LIBVIPS: Final = re.compile(r"\Aunable to [\w ]+\s+(?:\w+: )?")
# One thread: a photo being decoded takes up to 160 MB, and two at once would take twice that.
_decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="photo")


class PhotoHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of a photo states."""

    media_type: str
    extension: str
    """Without a dot."""
    width: int
    """Pixels as stored; of a HEIC, already turned upright."""
    height: int


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
    data: bytes


async def off_loop(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run work on a photo beside the event loop, one photo at a time in this process."""
    return await asyncio.get_running_loop().run_in_executor(_decoder, partial(function, *args, **kwargs))


@contextmanager
def opened(data: bytes, *, name: str | None = None) -> Iterator[OpenPhoto]:
    """Open a photo's bytes; decode inside the block. Raises PermanentError for what is no photo of ours.

    `name` is only used in the sentence. Too many pixels are refused by the header alone, an error of
    libvips or libheif inside the block becomes a sentence as well.
    """
    called = _called(name)
    kind = kind_of(data)
    if kind is None:
        what = describe(data)
        raise PermanentError(
            f"the file is {what}, not a photo{called}: check the source address"
            if data
            else f"the file{called} is {what}: check the source, the photo never arrived there"
        )
    try:
        yield _open_heic(data, called) if kind is HEIC else _open_with_libvips(data, kind, called)
    except OSError as error:
        if error.errno is not None:  # a file of the caller's, not the picture
            raise
        raise PermanentError(_damaged(kind, called, error)) from error
    except _BROKEN as error:
        raise PermanentError(_damaged(kind, called, error)) from error


def ensure_whole(photo: OpenPhoto, *, name: str | None = None) -> None:
    """Raise PermanentError if the photo is cut off, or if a document or an archive hides behind it.

    A film or a second picture behind it is what phones write and stays.
    """
    data, kind, called = photo.data, photo.kind, _called(name)
    frame = frame_of(data) if kind is JPEG else None
    end = end_of(data, kind, frame.scan if frame else 0)
    if end is None:
        raise PermanentError(
            f"the {kind.name} photo{called} is cut off after {len(data):,} bytes: send the whole file again"
        )
    behind = data[end:].lower()
    hidden = next(
        (
            words
            for mark, words in (
                (b"<html", "an HTML page"),
                (b"<script", "a script"),
                (b"<?php", "a script"),
                (b"%pdf-", "a PDF document"),
            )
            if mark in behind
        ),
        "an archive" if zipfile.is_zipfile(io.BytesIO(data)) else None,
    )
    if hidden:
        raise PermanentError(
            f"the {kind.name} photo{called} has {hidden} behind its last pixel:"
            " save it again as a photo alone"
        )


def _open_heic(data: bytes, called: str) -> OpenPhoto:
    picture = open_heic(data)
    _check_size(HEIC, called, picture.width, picture.height)
    if picture.piece_pixels > HEIC_PIECE_MAX_PIXELS:
        raise PermanentError(
            _too_large(HEIC, called, picture.width, picture.height, HEIC_PIECE_MAX_PIXELS)
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
    )


def _open_with_libvips(data: bytes, kind: PhotoKind, called: str) -> OpenPhoto:
    # A WebP's canvas would be allocated to read its header.
    if kind is WEBP and data[12:16] == b"VP8X" and len(data) >= 30:
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        _check_size(kind, called, width, height)
    # From a source: given the bytes themselves, libvips copies them.
    image = _LOADERS[kind.name](pyvips.Source.new_from_memory(data), access="sequential")
    _check_size(kind, called, image.width, image.height)
    row_by_row = False
    if kind is JPEG:
        row_by_row = _has_one_scan(data, image, called)
    elif kind is PNG:
        row_by_row = _has_short_rows(image, called)
    return OpenPhoto(
        kind=kind,
        header=_header(kind, image.width, image.height),
        exif=_blob(image, "exif-data"),
        profile=_blob(image, "icc-profile-data"),
        picture=image,
        row_by_row=row_by_row,
        data=data,
    )


def _header(kind: PhotoKind, width: int, height: int) -> PhotoHeader:
    return PhotoHeader(media_type=kind.media_type, extension=kind.extension, width=width, height=height)


def _blob(image: pyvips.Image, name: str) -> bytes:
    return bytes(image.get(name)) if image.get_typeof(name) else b""


def _check_size(kind: PhotoKind, called: str, width: int, height: int, limit: float = math.inf) -> None:
    """Raise PermanentError for more pixels than the kind's limit, or than a lower one."""
    limit = min(limit, kind.max_pixels)
    if width * height > limit:
        raise PermanentError(_too_large(kind, called, width, height, limit))


def _has_one_scan(data: bytes, image: pyvips.Image, called: str) -> bool:
    """Refuse a JPEG that is stored in too many passes, or is too large to be stored in several."""
    frame = frame_of(data)
    if frame is None:
        raise ValueError("no picture in its header")
    # The first scan's own marker stands before it.
    if data.count(b"\xff\xda", frame.scan) >= MAX_SCANS:
        raise PermanentError(
            f"the JPEG photo{called} is stored in more than {MAX_SCANS} passes, which no camera does:"
            " save it again as a plain JPEG"
        )
    if frame.buffered:
        _check_size(JPEG, called, image.width, image.height, JPEG_SCANS_MAX_SAMPLES / frame.samples)
    return not frame.buffered


def _has_short_rows(image: pyvips.Image, called: str) -> bool:
    """Refuse a PNG that is buffered whole and too large for it, or that has rows too long."""
    pixel = image.bands * (1 if image.format == "uchar" else 2)
    interlaced = bool(image.get_typeof("interlaced"))
    if interlaced:
        _check_size(PNG, called, image.width, image.height, PNG_INTERLACED_MAX_BYTES / pixel)
    if image.width * pixel > PNG_ROW_MAX_BYTES:
        raise PermanentError(
            f"the PNG photo{called} is {image.width:,} pixels wide, more than the"
            f" {PNG_ROW_MAX_BYTES // pixel:,} that are decoded: make it smaller"
        )
    return not interlaced and image.width * pixel <= PNG_ROW_MAX_BYTES // 2


def _too_large(kind: PhotoKind, called: str, width: int, height: int, limit: float) -> str:
    return (
        f"the {kind.name} photo{called} of {width:,} by {height:,} pixels is larger than the"
        f" {limit / 1e6:.0f} megapixels that are decoded: make it smaller"
    )


def _damaged(kind: PhotoKind, called: str, error: BaseException) -> str:
    cause = _LIBVIPS.sub("", str(error))
    cause = " ".join(cause.split("\n")[0].split())[:200] or type(error).__name__
    if "security limit" in cause.lower():  # libheif's words
        return (
            f"the {kind.name} photo{called} is larger, or in more parts, than what is decoded ({cause}):"
            " make it smaller"
        )
    return f"the {kind.name} photo{called} is damaged and cannot be decoded ({cause}): send it again"


def _called(name: str | None) -> str:
    """The name for a sentence: at most 80 printable characters, or nothing."""
    shown = "".join(letter for letter in name or "" if letter.isprintable())[:80]
    return f" (named {shown})" if shown else ""

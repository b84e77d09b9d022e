"""Open a photo that anybody may have sent: four kinds, told by content, its size checked before decoding.

Every way in which a file can be no photo ends as a PermanentError that says what is wrong with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import io
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import msgspec
import pi_heif  # type: ignore[import-untyped]  # ships no types
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from shared.photos.kinds import (
    HEIC,
    JPEG,
    JPEG_SCANS_MAX_SAMPLES,
    PNG,
    WEBP,
    PhotoKind,
    describe,
    end_of,
    kind_of,
)
from shared.retry.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

P = ParamSpec("P")
T = TypeVar("T")

_STRIP_BYTES: Final = 4_000_000
MAX_SCANS: Final = 100
"""Each scan of a JPEG walks the whole picture again; encoders write about ten, an attacker 100,000."""

# The pictures beside the picture are not needed, and threads would decode several at a time.
pi_heif.options.THUMBNAILS = False
pi_heif.options.DEPTH_IMAGES = False
pi_heif.options.AUX_IMAGES = False
pi_heif.options.DECODE_THREADS = 1

with contextlib.suppress(OSError, AttributeError):
    # glibc raises by itself, up to 32 MB, the size from which a block is given back to the system when it is
    # freed. Pillow's blocks of 16 MB would stay with us then, in pieces: 100 MB were seen. M_MMAP_THRESHOLD
    # (malloc.h) set once stays as it is. Another C library has no such call, and needs none.
    ctypes.CDLL(None).mallopt(-3, 1 << 20)

# What the four decoders were seen to raise on broken bytes, an OSError without a number among it.
_BROKEN: Final = (
    SyntaxError,
    ValueError,
    EOFError,
    RuntimeError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)
# One thread: a photo being decoded takes up to 350 MB, and two at once would take twice that. More
# processes are the way to decode more.
_decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="photo")


class _Jpeg(JpegImageFile):
    """A JPEG alone: of a multi-picture file (MPO) the first picture."""

    def _read_dpi_from_exif(self) -> None:
        """Not read: it parses all EXIF, and warns about what is broken there. We read it ourselves."""


class _WebP(WebPImageFile):
    """A WebP alone: of an animation the first picture."""

    def _get_next(self) -> tuple[bytes, int, int]:
        frame = super()._get_next()
        # Pillow makes a copy next; the decoder's two canvases would stand beside it.
        self._decoder = None
        return frame


class _Heic(pi_heif.HeifImageFile):  # type: ignore[misc]  # carries no types
    """A HEIC which `draft` has made smaller while it is decoded, as a JPEG is, at half the memory."""

    _factor = 1
    _heif_file: Any

    def draft(self, _mode: str | None, size: tuple[int, int] | None) -> None:
        """Ask for a whole fraction of the size, at least twice `size`."""
        if size is not None:
            self._factor = max(1, min(self.width // size[0], self.height // size[1]) // 2)

    def load(self) -> Any:
        """Decode; if it was asked for, Pillow never gets the whole of it."""
        if self._factor > 1 and self._heif_file is not None:
            frame = self._heif_file[self.tell()]
            rows = memoryview(frame.data)  # decodes; the size may turn out to be another one
            (width, height), stride = frame.size, frame.stride
            factor, self._factor = self._factor, 1
            small = Image.new(frame.mode, (-(-width // factor), -(-height // factor)))
            step = factor * max(1, _STRIP_BYTES // (stride * factor))
            for top in range(0, height, step):
                lines = min(step, height - top)
                part: Any = rows[top * stride : (top + lines) * stride]
                strip = Image.frombuffer(frame.mode, (width, lines), part, "raw", frame.mode, stride, 1)
                small.paste(strip.reduce(factor), (0, top // factor))
            self._size, self.im, self._heif_file = small.size, small.im, None
        return super().load()


# The classes are called directly. `Image.open` would ask every decoder Pillow has (some 40 formats) in
# turn, or those that another module registered, and only warn where a picture is too large.
_DECODERS: Final[Mapping[str, Callable[[io.BytesIO], ImageFile]]] = {
    JPEG.name: _Jpeg,
    PNG.name: PngImageFile,
    WEBP.name: _WebP,
    HEIC.name: _Heic,
}


class PhotoHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the first bytes say."""

    media_type: str
    extension: str
    """Without a dot."""
    width: int
    """Pixels as the decoder gives them: as stored; of a HEIC, already turned upright."""
    height: int


class OpenPhoto(msgspec.Struct, frozen=True, kw_only=True):
    """A photo whose header was read and whose pixels were not."""

    kind: PhotoKind
    header: PhotoHeader
    image: ImageFile
    """Pillow's. Nothing is decoded before `image.load()`; the block of `opened` has to be open then."""
    data: bytes


async def off_loop(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run work on a photo beside the event loop, one photo at a time in this process."""
    return await asyncio.get_running_loop().run_in_executor(_decoder, partial(function, *args, **kwargs))


@contextmanager
def opened(data: bytes, *, name: str | None = None) -> Iterator[OpenPhoto]:
    """Open a photo's bytes; decode inside the block. Raises PermanentError for what is no photo of ours.

    `name` is only used in the sentence. Too many pixels are refused by the header alone, an error of
    Pillow, libheif or zlib inside the block becomes a sentence as well.
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
        if not _size_is_plausible(data, kind):
            raise PermanentError(_too_large(kind, called))
        with _DECODERS[kind.name](io.BytesIO(data)) as image:
            _check_size(image, data, kind, called)
            width, height = image.size
            header = PhotoHeader(
                media_type=kind.media_type, extension=kind.extension, width=width, height=height
            )
            yield OpenPhoto(kind=kind, header=header, image=image, data=data)
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
    end = end_of(data, kind, _scan_start(photo.image) if kind is JPEG else 0)
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


def _check_size(image: ImageFile, data: bytes, kind: PhotoKind, called: str) -> None:
    """Refuse what would take too much memory or time to decode. Raises PermanentError."""
    limit = kind.max_pixels
    if isinstance(image, JpegImageFile):
        first = data.rfind(b"\xff\xda", 0, _scan_start(image))
        if data.count(b"\xff\xda", first) > MAX_SCANS:
            raise PermanentError(
                f"the JPEG photo{called} is stored in more than {MAX_SCANS} passes, which no camera does:"
                " save it again as a plain JPEG"
            )
        # The first scan names its components; fewer than the picture has means that more scans follow.
        if image.info.get("progressive") or data[first + 4] < image.layers:
            limit = int(JPEG_SCANS_MAX_SAMPLES / _samples(image))
    width, height = image.size
    if width * height > limit:
        raise PermanentError(_too_large(kind, called, limit, width, height))


def _samples(image: JpegImageFile) -> float:
    """How many values a JPEG stores for a pixel, over all its components."""
    parts = [(across, down) for _, across, down, _ in image.layer]
    widest, highest = (max(part[axis] for part in parts) for axis in (0, 1))
    return sum(across * down for across, down in parts) / (widest * highest)


def _size_is_plausible(data: bytes, kind: PhotoKind) -> bool:
    """Whether a WebP's canvas is within the limit: its decoder allocates it while it is opened."""
    if kind is not WEBP or data[12:16] != b"VP8X" or len(data) < 30:
        return True
    width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    return width * height <= kind.max_pixels


def _scan_start(image: ImageFile) -> int:
    """Where a JPEG's first scan starts, behind its header: Pillow stops reading there."""
    return image.fp.tell() if image.fp else 0


def _too_large(kind: PhotoKind, called: str, limit: int = 0, width: int = 0, height: int = 0) -> str:
    size = f" of {width:,} by {height:,} pixels" if width else ""
    megapixels = (limit or kind.max_pixels) / 1e6
    return (
        f"the {kind.name} photo{called}{size} is larger than the {megapixels:.0f} megapixels that are"
        " decoded: make it smaller"
    )


def _damaged(kind: PhotoKind, called: str, error: BaseException) -> str:
    cause = " ".join(str(error).split())[:200] or type(error).__name__
    return f"the {kind.name} photo{called} is damaged and cannot be decoded ({cause}): send it again"


def _called(name: str | None) -> str:
    """The name for a sentence: at most 80 printable characters, or nothing."""
    shown = "".join(letter for letter in name or "" if letter.isprintable())[:80]
    return f" (named {shown})" if shown else ""

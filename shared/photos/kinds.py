"""Recognises a file by its first bytes, never by its name, and finds where the photo in it ends."""

from __future__ import annotations

import mmap
import re
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

Data: TypeAlias = bytes | mmap.mmap
"""A file's bytes. What is mapped has fewer methods, and its slices are bytes."""
_MEGA: Final = 1_000_000


class PhotoKind(msgspec.Struct, frozen=True, kw_only=True):
    """One of the four kinds of photo we take."""

    name: str
    """The name in sentences."""
    media_type: str
    extension: str
    max_pixels: int
    """A larger photo is not decoded. This and the limits below come from measured memory: one photo takes at
    most 160 MB, so that the agent with the local model, which needs 180 MB itself, stays below 400 MB."""


JPEG: Final = PhotoKind(name="JPEG", media_type="image/jpeg", extension="jpg", max_pixels=120 * _MEGA)
PNG: Final = PhotoKind(name="PNG", media_type="image/png", extension="png", max_pixels=120 * _MEGA)
# Four bytes a pixel if it was compressed without loss.
WEBP: Final = PhotoKind(name="WebP", media_type="image/webp", extension="webp", max_pixels=40 * _MEGA)
HEIC: Final = PhotoKind(name="HEIC", media_type="image/heic", extension="heic", max_pixels=120 * _MEGA)

# JPEG and PNG are decoded row by row, 120 megapixels (the largest cameras) in less than 100 MB. Except:
JPEG_SCANS_MAX_SAMPLES: Final = 72 * _MEGA
"""A JPEG of several scans (a progressive one) is buffered whole: 2 bytes for each sample of each component.
There are 1.5 samples a pixel where colour is stored at half the size, as is usual, and up to 4 in CMYK."""
PNG_INTERLACED_MAX_BYTES: Final = 120 * _MEGA
"""An interlaced PNG is buffered whole: a byte for each channel of a pixel, two with 16 bits."""
PNG_ROW_MAX_BYTES: Final = 65_536
"""A PNG is made smaller over many rows at a time, which takes 140 MB for rows of that length."""
HEIC_PIECE_MAX_PIXELS: Final = 25 * _MEGA
"""What is decoded in one piece takes 6 bytes a pixel. Phones store tiles, which are decoded row by row."""

_HEIC_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
_BOXES: Final = frozenset({b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip", b"uuid", b"mpvd"})
"""The boxes that photos have; one of them behind the end of the file is cut off."""
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_ELSE: Final = (
    (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF or raw image"),
    (b"MM\0*", "a TIFF or raw image"),
    (b"FUJIFILMCCD-RAW", "a raw image (RAF)"),
    (b"BM", "a BMP image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an Office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"8BPS", "a Photoshop document"),
    (b"RIFF", "a sound or video file"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\x1aE\xdf\xa3", "a video"),
)
_TEXTS: Final = (
    (re.compile(rb"<!doctype html|<(?:html|head|body)|.*<html", re.DOTALL), "an HTML page"),
    (re.compile(rb".*<svg", re.DOTALL), "an SVG drawing"),
    (re.compile(rb"<"), "an XML document"),
    (re.compile(rb"[{\[]"), "a JSON document"),
)


def kind_of(data: Data) -> PhotoKind | None:
    """The kind of photo that bytes begin like, or None for anything else."""
    head = data[:12]
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith(_PNG_SIGNATURE):
        return PNG
    if head.startswith(b"RIFF") and head[8:] == b"WEBP":
        return WEBP
    brands = _brands(data)
    # An AVIF file names `mif1` as well, the container's own brand; its pictures need another decoder.
    if brands & _HEIC_BRANDS and not brands & {b"avif", b"avis"}:
        return HEIC
    return None


def describe(data: Data) -> str:
    """What a file that is no photo of ours seems to be, in words, with its article."""
    if not data:
        return "empty (0 bytes)"
    for signature, words in _ELSE:
        if data[:32].startswith(signature):
            return words
    brands = _brands(data)
    if brands:
        if b"crx " in brands:
            return "a raw image (CR3)"
        return "an AVIF image" if brands & {b"avif", b"avis"} else "a video"
    start = data[:4096]
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for pattern, words in _TEXTS:
        if pattern.match(text):
            return words
    if not start.strip(b"\0"):
        return "nothing but zero bytes"
    # The last letter may be cut in two.
    letters = start.decode(errors="replace").rstrip("\ufffd")
    is_text = (
        all(letter.isprintable() or letter in "\t\r\n\f" for letter in letters) and "\ufffd" not in letters
    )
    return "a text file" if is_text and letters else "of an unknown kind"


def png_chunks(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk of a PNG: its type, and where its body starts and ends. Stops at one that is cut off."""
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        start = position + 8
        end = start + int.from_bytes(data[position : position + 4])
        if end + 4 > len(data):
            return
        yield data[position + 4 : start], start, end
        position = end + 4


def end_of(data: Data, kind: PhotoKind) -> int | None:
    """Where a WebP's or a HEIC's own bytes end, or None if they are cut off before that.

    Cameras append more (a second picture, a short film), so the end of the file is not the photo's end.
    """
    if kind is WEBP:
        end = 8 + int.from_bytes(data[4:8], "little")
        return end if end <= len(data) else None
    return _boxes_end(data)


def _boxes_end(data: Data) -> int | None:
    """Find the end of a file of ISO boxes (ISO 14496-12). Each has its length; 0 is up to the end.

    Behind the boxes some cameras write a trailer of their own, which is no box.
    """
    position = 0
    while position + 8 <= len(data):
        size, name = int.from_bytes(data[position : position + 4]), data[position + 4 : position + 8]
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16])
        if size == 0 and name in _BOXES:
            return len(data)
        if size < 8 or position + size > len(data):
            return None if name in _BOXES or position == 0 else position
        position += size
    return position


def _brands(data: Data) -> frozenset[bytes]:
    """Major and compatible brands of an ISO file's `ftyp` box; none for any other file."""
    if data[4:8] != b"ftyp":
        return frozenset()
    size = min(int.from_bytes(data[:4]), 256)
    return frozenset({data[8:12], *(data[at : at + 4] for at in range(16, size - 3, 4))})

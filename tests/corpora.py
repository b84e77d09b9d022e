"""Counts how photos of public test collections fare: good ones must be taken, damaged ones refused.

    apt-get source --download-only pillow libjpeg-turbo exiv2
    python -m tests.corpora *.tar.* FOLDER...

Reads folders and tar archives; nothing is kept. Independent decoders decide what is good: Pillow and pi-heif,
which read every pixel. Pillow refuses some PNGs for what stands beside the picture (a text, a profile, the
frames of an animation), and takes some that lack rows; so zlib counts the rows. A HEIC file whose last box is
cut off is not whole, although libheif shows what is there. Files on which the two still disagree are listed,
with the reason in `_LOOKED_AT` for those that a person has looked at. Other kinds of files and large ones do
not count.
"""

from __future__ import annotations

import asyncio
import io
import struct
import sys
import tarfile
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pi_heif
from PIL import Image

from shared.photos.decoders import Decoders
from shared.photos.kinds import HEIC, kind_of
from shared.retry.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LARGEST: Final = 15_000_000
"""Bytes, the default of MAX_PHOTO_BYTES."""
_OF_RULE: Final = ("make it smaller", "which no camera does", "behind its last pixel", "than what is decoded")
"""Sentences about photos that are refused although they can be decoded."""
_LOOKED_AT: Final[Mapping[str, str]] = {
    "hopper_bad_exif.jpg": "rightly refused: stripes instead of the picture, of which Pillow says nothing",
    "truncated_jpeg.jpg": "rightly taken: all its rows are there, and half of its end marker",
    "corrupted.jpg": "rightly refused: a grey strip at the bottom, of which Pillow says nothing",
}
"""By file name: what a person saw in a file on which the decoders disagree."""
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a PNG's pixel, by its colour type (PNG specification, table 11.1)."""


def files(place: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each file of a folder or a tar archive that begins like a photo: its name and its bytes."""
    found: Iterator[tuple[str, bytes]]
    if place.is_dir():
        found = ((str(path), path.read_bytes()) for path in sorted(place.rglob("*")) if path.is_file())
    else:
        found = _packed(place)
    for name, data in found:
        if len(data) <= _LARGEST and kind_of(data):
            yield name, data


def _packed(place: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(place) as archive:
        for member in archive:
            if member.isfile() and (file := archive.extractfile(member)):
                yield f"{place.name}:{member.name}", file.read()


def is_good(data: bytes) -> bool:
    """Report whether the independent decoders read every pixel."""
    kind = kind_of(data)
    if kind is HEIC:
        return _boxes_are_whole(data) and _decodes(data, "")
    name = kind.name.upper() if kind else ""
    rows = _rows_are_whole(data) if name == "PNG" else None
    return _decodes(data, name) if rows is None else rows


def _decodes(data: bytes, kind: str) -> bool:
    """Report whether Pillow, or pi-heif for no kind, decodes a picture without an error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not kind:
                pi_heif.open_heif(data).to_pillow().load()
            else:
                with Image.open(io.BytesIO(data), formats=[kind]) as picture:
                    picture.load()
    except Exception:  # noqa: BLE001 - decoders raise whatever they like
        return False
    return True


def _boxes_are_whole(data: bytes) -> bool:
    """Report whether the boxes of an ISO base media file end where the file does, or before it."""
    at = 0
    while at + 8 <= len(data):
        size, _ = struct.unpack_from(">I4s", data, at)
        if size == 1 and at + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, at + 8)
        if size < 8:  # 0: up to the end of the file; others: something behind the boxes
            return True
        at += size
    return at <= len(data)


def _rows_are_whole(data: bytes) -> bool | None:
    """Report whether a PNG has all its rows, whatever stands beside them; None if it is interlaced."""
    at, packed, needed = 8, b"", 0
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        checked = zlib.crc32(kind + body).to_bytes(4) == data[at + 8 + length : at + 12 + length]
        if kind in (b"IHDR", b"IDAT") and not checked:
            return False
        if kind == b"IHDR":
            width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            if interlaced or colours not in _CHANNELS:
                return None
            needed = height * (1 + (width * depth * _CHANNELS[colours] + 7) // 8)
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    try:
        return 0 < needed <= len(zlib.decompressobj().decompress(packed, needed + 1))
    except zlib.error:
        return False


async def verdict(decoders: Decoders, data: bytes) -> str:
    """Return the sentence with which a photo is refused; '' if it is taken."""
    try:
        await decoders.examine(data)
        await decoders.preview(data)
    except PermanentError as error:
        return str(error)
    return ""


async def count(places: Sequence[Path]) -> Counter[str]:
    """Send every photo through the decoder, and print those on which the two disagree."""
    counted: Counter[str] = Counter()
    async with Decoders() as decoders:
        for place in places:
            for name, data in files(place):
                good, sentence = is_good(data), await verdict(decoders, data)
                if any(rule in sentence for rule in _OF_RULE):
                    counted["refused by a rule"] += 1
                    continue
                outcome = f"{'good' if good else 'damaged'}, {'refused' if sentence else 'taken'}"
                counted[outcome] += 1
                if good == bool(sentence):
                    seen = _LOOKED_AT.get(Path(name).name, "")
                    counted["disagreed, and looked at" if seen else "disagreed"] += 1
                    sys.stdout.write(f"{outcome}: {name} {sentence} {seen and f'({seen})'}\n")
    return counted


def main() -> int:
    """Count, and print the table."""
    if len(sys.argv) < 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    counted = asyncio.run(count([Path(word) for word in sys.argv[1:]]))
    for outcome, number in sorted(counted.items()):
        sys.stdout.write(f"{number:6} {outcome}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

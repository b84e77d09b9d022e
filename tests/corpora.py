"""Counts how photos of public test collections fare: good ones must be taken, damaged ones refused.

    apt-get source --download-only pillow libjpeg-turbo exiv2
    python -m tests.corpora *.tar.* FOLDER...

Reads folders and tar archives; nothing is kept. An independent decoder decides what is good: Pillow, which
reads every pixel. The two may disagree for a reason (an end marker that is half there, a damaged text), so
such files are listed for people to look at. Other kinds of files and large ones do not count.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tarfile
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pi_heif
from PIL import Image

from shared.photos.decoders import Decoders
from shared.photos.kinds import HEIC, kind_of
from shared.retry.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LARGEST: Final = 15_000_000
"""Bytes, the default of MAX_PHOTO_BYTES."""
_OF_RULE: Final = ("make it smaller", "which no camera does", "behind its last pixel", "than what is decoded")
"""Sentences about photos that are refused although they can be decoded."""


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
    """Report whether the independent decoder reads every pixel."""
    kind = kind_of(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind is HEIC:
                pi_heif.open_heif(data).to_pillow().load()
            else:
                with Image.open(io.BytesIO(data), formats=[(kind.name if kind else "").upper()]) as picture:
                    picture.load()
    except Exception:  # noqa: BLE001 - decoders raise whatever they like
        return False
    return True


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
                    sys.stdout.write(f"{outcome}: {name} {sentence}\n")
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

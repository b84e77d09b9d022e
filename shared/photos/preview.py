"""Makes small versions of a photo: upright JPEGs in sRGB that hold nothing but pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyvips

from shared.photos.exif import facts_of
from shared.photos.heic import HeicPicture, decode_heic
from shared.photos.malloc import release_memory
from shared.photos.open import ensure_undamaged, opened
from shared.photos.png import MAX_PROFILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.photos.kinds import Data
    from shared.photos.open import OpenPhoto

# What the pixels of a photo can be (ICC.1:2022, 7.2.6); a profile for others is a mistake.
_PROFILE_SPACES: Final = frozenset({b"RGB ", b"GRAY", b"CMYK"})

# What to do with the stored pixels so that they stand upright (Exif 3.0, tag 0x0112): turned clockwise first,
# then flipped.
_UPRIGHT: Final[Mapping[int, tuple[str, bool]]] = {
    1: ("d0", False),
    2: ("d0", True),
    3: ("d180", False),
    4: ("d180", True),
    5: ("d90", True),
    6: ("d90", False),
    7: ("d270", True),
    8: ("d270", False),
}


def make_preview(
    original: Data, max_side: int = 1024, *, quality: int = 85, name: str | None = None
) -> bytes:
    """A JPEG with a long side of at most `max_side` pixels, turned upright, transparency on white.

    Never larger than the original. No EXIF, position, comment or colour profile is in it: colours are
    converted to sRGB. Raises PermanentError for what cannot be decoded, with `name` in its sentence, and
    MemoryError.
    """
    with opened(original, name=name) as photo:
        if not photo.row_by_row:
            # Before decoding, so that memory left by earlier photos does not add to this one's.
            release_memory()
        turn, flip = _UPRIGHT[facts_of(photo).orientation]
        small = shrunk(photo, max_side)
        if small.hasalpha():
            small = small.flatten(background=[255])
        small = small.colourspace("srgb").rot(turn)
        if flip:
            small = small.fliphor()
        return bytes(small.jpegsave_buffer(Q=quality, keep=0))


def shrunk(photo: OpenPhoto, max_side: int) -> pyvips.Image:
    """Decode a photo to its final size, with as little work as its format allows.

    Raises libvips' and libheif's errors, and ValueError for a photo with damaged pixels.
    """
    convert = photo.profile[16:20] in _PROFILE_SPACES and len(photo.profile) <= MAX_PROFILE_BYTES
    options = {"height": max_side, "size": "down", "no_rotate": True} | (
        {"output_profile": "srgb"} if convert else {}
    )
    if isinstance(photo.picture, HeicPicture):
        # At least twice the final size is left for libvips, which averages better than we do.
        factor = max(1, max(photo.header.width, photo.header.height) // max_side // 2)
        image = decode_heic(photo.picture, factor)
        if convert:
            image.set_type(pyvips.GValue.blob_type, "icc-profile-data", photo.profile)
        return image.thumbnail_image(max_side, **options)
    # libvips reads from our bytes as it goes: they have to be there until it has all pixels.
    source = pyvips.Source.new_from_memory(photo.pixels)
    # As an option of the loader: the argument of that name does nothing in libvips 8.18.
    options["option_string"] = "[fail_on=truncated]"
    small = pyvips.Image.thumbnail_source(source, max_side, **options).copy_memory()
    ensure_undamaged(photo)
    return small

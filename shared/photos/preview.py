"""Small versions of a photo: upright, sRGB, a JPEG, and nothing in it but the pixels."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageCms

from shared.photos.exif import facts_of
from shared.photos.open import opened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.photos.open import OpenPhoto

PREVIEW_SIDE: Final = 1024
"""Pixels of the long side; what a vision model sees."""
THUMBNAIL_SIDE: Final = 320
"""Pixels of the long side; what a report's page shows."""
_MAX_PROFILE_BYTES: Final = 4_000_000
_STRIP_PIXELS: Final = 1_000_000

# What to do with the stored pixels so that they stand upright (Exif 3.0, tag 0x0112).
_UPRIGHT: Final[Mapping[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def make_preview(original: bytes, max_side: int = PREVIEW_SIDE, *, quality: int = 85) -> bytes:
    """A JPEG with a long side of at most `max_side` pixels, turned upright, transparency on white.

    Never larger than the original. No EXIF, position, comment or colour profile is in it: colours are
    converted to sRGB. Raises PermanentError for what cannot be decoded. Takes time: call it `off_loop`.
    """
    with opened(original) as photo:
        orientation = facts_of(photo).orientation
        small = _shrunk(photo, max_side)
        small = _srgb(small, photo.image.info.get("icc_profile"))
        if orientation in _UPRIGHT:
            small = small.transpose(_UPRIGHT[orientation])
        # What is left in `info` (a comment, for one) would be written along.
        small.info.clear()
        target = io.BytesIO()
        small.save(target, "JPEG", quality=quality)
        return target.getvalue()


def thumbnail(original: bytes, max_side: int = THUMBNAIL_SIDE) -> bytes:
    """A small preview for a report's page."""
    return make_preview(original, max_side, quality=75)


def _shrunk(photo: OpenPhoto, max_side: int) -> Image.Image:
    """The decoded photo at its final size, with as little decoding as its format allows."""
    image = photo.image
    scale = min(1.0, max_side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # A JPEG is decoded at a half, a quarter or an eighth of its size, whichever is just large enough.
    image.draft(None, size)
    image.load()
    # Where no draft was possible a box filter comes first, down to at least twice the size.
    factor = max(1, min(image.width // size[0], image.height // size[1]) // 2)
    plain = _plain(image) if factor == 1 else _reduced(image, factor)
    if plain.size == size:
        return plain
    # For making smaller, Hamming is as sharp as bicubic at half its cost; with Lanczos half of the time for a
    # JPEG would go here. The box leaves out what the last boxes had too few pixels for.
    box = (0, 0, image.width / factor, image.height / factor)
    return plain.resize(size, Image.Resampling.HAMMING, box=box)


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """The picture at a whole fraction of its size, strip by strip: the copies that Pillow makes are small."""
    rows = factor * max(1, _STRIP_PIXELS // (image.width * factor))
    target: Image.Image | None = None
    for top in range(0, image.height, rows):
        strip = _plain(image.crop((0, top, image.width, min(top + rows, image.height)))).reduce(factor)
        if target is None:
            target = Image.new(strip.mode, (strip.width, -(-image.height // factor)))
        target.paste(strip, (0, top // factor))
    if target is None:
        raise ValueError("a picture without rows")
    return target


def _plain(image: Image.Image) -> Image.Image:
    """In a mode that can be made smaller without loss: no palette, no 16 bit, no single bits."""
    if image.mode.startswith("I;16") or image.mode == "I":
        # 16-bit grey. Pillow's own conversion cuts everything above 255 off.
        return image.point(lambda value: value * (1 / 256)).convert("L")
    # None of these is copied: of a large photo that would be another 100 MB.
    if image.mode in ("RGB", "L", "CMYK", "RGBA", "LA") and "transparency" not in image.info:
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _srgb(image: Image.Image, profile: object) -> Image.Image:
    """In sRGB, by the photo's own profile if it has a usable one; transparency laid on white."""
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    if alpha is not None:
        image = image.convert("RGB")
    transform = None
    if isinstance(profile, bytes) and len(profile) <= _MAX_PROFILE_BYTES:
        transform = _transform(profile, image.mode)
    image = transform.apply(image) if transform else image.convert("RGB")
    if alpha is None:
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None if it is sRGB already, is broken, or is for another kind of pixels."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None

"""Previews stand upright, have the right colours, and carry nothing but pixels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import pytest
import pyvips
from PIL import Image, ImageChops, ImageCms, ImageOps, ImageStat

from sandbox.heic import heic
from shared.photos.decoders import THUMBNAIL_SIDE
from shared.photos.preview import make_preview
from shared.retry.errors import PermanentError
from tests.shared.photos.pictures import CORNERS, jpeg, picture, rationals, saved, short, text, tiff

if TYPE_CHECKING:
    from collections.abc import Mapping

# How the corners of the stored pixels must lie so that a reader who obeys the orientation sees CORNERS:
# the first row is the upright picture's top for 1 and 2, its bottom for 3 and 4, and so on (Exif 3.0).
STORED: Final[Mapping[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
NAMES: Final = {(255, 0, 0): "red", (0, 255, 0): "lime", (0, 0, 255): "blue", (255, 255, 0): "yellow"}


def decoded(data: bytes) -> Image.Image:
    """A preview's pixels; it must be a plain RGB JPEG."""
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    image.load()
    assert image.mode == "RGB"
    return image


def colour(image: Image.Image, x: float, y: float) -> tuple[int, int, int]:
    """The pixel at a place given as shares of width and height."""
    found = image.getpixel((int(image.width * x), int(image.height * y)))
    assert isinstance(found, tuple)
    return found[0], found[1], found[2]


def corners(image: Image.Image) -> tuple[str, ...]:
    """The colours of the four quarters by name, the nearest one."""
    quarters = (colour(image, x, y) for y in (0.25, 0.75) for x in (0.25, 0.75))
    return tuple(
        NAMES[min(NAMES, key=lambda name: sum(abs(a - b) for a, b in zip(name, quarter, strict=True)))]
        for quarter in quarters
    )


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_ends_upright(orientation: int, form: str) -> None:
    stored = picture()
    if orientation in STORED:
        stored = stored.transpose(STORED[orientation])
    exif = b"Exif\0\0" + tiff(main=[short(0x0112, orientation)])
    original = saved(stored, form, exif=exif, quality=95)
    preview = decoded(make_preview(original))
    assert preview.size == (48, 32)
    assert corners(preview) == CORNERS
    # Pillow is of the same opinion about what was stored.
    assert corners(ImageOps.exif_transpose(Image.open(io.BytesIO(original))).convert("RGB")) == CORNERS


@pytest.mark.parametrize(("turns", "orientation"), [(0, 1), (1, 8), (2, 3), (3, 6)])
def test_a_heic_is_turned_by_its_own_instruction_and_not_once_more(turns: int, orientation: int) -> None:
    stored = picture()
    if orientation in STORED:
        stored = stored.transpose(STORED[orientation])
    exif = tiff(main=[short(0x0112, orientation)])
    preview = decoded(make_preview(heic(stored, exif=exif, quarter_turns=turns)))
    assert preview.size == (48, 32)
    assert corners(preview) == CORNERS


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((3000, 2000), (1024, 683)),
        ((2000, 3000), (683, 1024)),
        ((640, 480), (640, 480)),
        ((5000, 3), (1024, 1)),
    ],
)
def test_the_long_side_is_at_most_1024_and_nothing_is_made_larger(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert decoded(make_preview(saved(picture(*size)))).size == expected


def test_a_thumbnail_is_320_wide() -> None:
    small = make_preview(saved(picture(1500, 1000)), THUMBNAIL_SIDE, quality=75)
    assert decoded(small).size == (320, 213)
    assert corners(decoded(small)) == CORNERS
    assert len(small) < 10_000


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "HEIC"])
def test_nothing_of_the_metadata_is_left(form: str) -> None:
    exif = tiff(
        main=[text(0x010E, "CANARY-description"), text(0x010F, "CANARY-make")],
        gps=[text(1, "N"), rationals(2, (47, 1)), text(3, "E"), rationals(4, (8, 1)), text(29, "CANARY")],
    )
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if form == "HEIC":
        original = heic(picture(), exif=exif)
    else:
        original = saved(
            picture(),
            form,
            exif=b"Exif\0\0" + exif,
            icc_profile=profile,
            comment=b"CANARY-comment",
            xmp=b"<x:xmpmeta>CANARY-xmp</x:xmpmeta>",
        )
    assert b"CANARY" in original
    preview = make_preview(original)
    assert b"CANARY" not in preview
    assert b"Exif" not in preview
    assert b"ICC_PROFILE" not in preview
    assert not decoded(preview).getexif()


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        (saved(picture(mode="CMYK"), quality=95), CORNERS),
        (saved(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (48, 32))]), CORNERS),
        (saved(picture().quantize(8), "PNG"), CORNERS),
        (saved(picture(mode="RGBA"), "PNG"), CORNERS),
        (saved(picture(mode="RGBA"), "WEBP", lossless=True), CORNERS),
        (saved(picture(), "WEBP", quality=95), CORNERS),
        (saved(picture(), progressive=True, quality=95), CORNERS),
        (heic(picture()), CORNERS),
    ],
    ids=["cmyk", "mpo", "palette", "png-alpha", "webp-alpha", "webp", "progressive", "heic"],
)
def test_every_kind_keeps_its_colours(original: bytes, expected: tuple[str, ...]) -> None:
    assert corners(decoded(make_preview(original))) == expected


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_stays_grey(mode: str) -> None:
    preview = decoded(make_preview(saved(Image.new("L", (64, 64), 255).convert(mode), "PNG")))
    assert colour(preview, 0.5, 0.5) == (255, 255, 255)


def test_16_bit_grey_keeps_its_brightness() -> None:
    preview = decoded(make_preview(saved(Image.new("I;16", (64, 64), 0x8000), "PNG")))
    assert colour(preview, 0.5, 0.5) == pytest.approx((128, 128, 128), abs=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    options = {}
    if mode == "P":
        image, options = Image.new("P", (64, 64), 0), {"transparency": 0}
    elif mode == "LA":
        image = image.convert("LA")
    preview = decoded(make_preview(saved(image, "PNG", **options)))
    assert colour(preview, 0.5, 0.5) == (255, 255, 255)


def test_colours_of_another_space_are_converted() -> None:
    linear = gamma_profile(1.0)
    preview = decoded(make_preview(saved(Image.new("RGB", (64, 64), (55, 55, 55)), icc_profile=linear)))
    # sRGB of a linear 55/255: 1.055 * 0.2157 ** (1 / 2.4) - 0.055 = 0.5017
    assert colour(preview, 0.5, 0.5) == pytest.approx((128, 128, 128), abs=3)


def test_a_broken_profile_is_ignored() -> None:
    preview = decoded(make_preview(saved(picture(), icc_profile=b"\0\0\0\x10acspbroken", quality=95)))
    assert corners(preview) == CORNERS


def test_a_profile_of_a_space_that_no_photo_is_in_is_ignored() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    preview = decoded(make_preview(saved(picture(), icc_profile=lab, quality=95)))
    assert corners(preview) == CORNERS
    assert colour(preview, 0.75, 0.25)[1] > 240


def test_a_profile_for_other_pixels_is_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    preview = decoded(make_preview(saved(picture(mode="L"), icc_profile=profile)))
    assert colour(preview, 0.75, 0.25) == pytest.approx((150, 150, 150), abs=3)


def test_what_cannot_be_decoded_is_a_permanent_error() -> None:
    with pytest.raises(PermanentError, match="cannot be decoded"):
        make_preview(jpeg()[:-200])


def gamma_profile(gamma: float) -> bytes:
    """A profile with sRGB's primaries and another tone curve, under another name (ICC.1:2022, 10.18)."""
    raw = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(raw[128:132])
    for at in range(132, 132 + 12 * count, 12):
        if raw[at + 1 : at + 4] == b"TRC":
            start = int.from_bytes(raw[at + 4 : at + 8])
            # A parametric curve of type 0: Y = X ** g, as a 16.16 fixed-point number.
            raw[start : start + 16] = b"para" + bytes(8) + round(gamma * 65_536).to_bytes(4)
    return bytes(raw).replace(b"s\0R\0G\0B", b"l\0i\0n\0e")


def test_a_heic_made_smaller_while_it_is_decoded_looks_the_same() -> None:
    original = heic(picture(1000, 700))
    whole = Image.open(io.BytesIO(make_preview(original, 1000)))
    small = Image.open(io.BytesIO(make_preview(original, 120)))
    assert small.size == (120, 84)
    apart = ImageChops.difference(whole.resize(small.size, Image.Resampling.BOX), small)
    assert ImageStat.Stat(apart).mean == pytest.approx([0, 0, 0], abs=4)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
@pytest.mark.parametrize("interlace", [False, True])
def test_a_png_made_smaller_keeps_its_colours(mode: str, *, interlace: bool) -> None:
    image = picture(997, 703)
    if mode == "I;16":
        image = (
            Image.merge("L", [image.getchannel("R")]).point(lambda value: value * 257, "I").convert("I;16")
        )
    else:
        image = image.convert(mode)
    stored = saved(image, "PNG")
    if interlace:
        stored = bytes(pyvips.Image.pngload_buffer(stored).pngsave_buffer(interlace=True))
    small = decoded(make_preview(stored, 100))
    assert small.size == (100, 71)
    wanted = image.point(lambda value: value / 257).convert("L") if mode == "I;16" else image
    wanted = wanted.convert("RGB").resize(small.size, Image.Resampling.BOX)
    apart = ImageChops.difference(wanted, small)
    # Colours at half the size, beside edges that could not be harder.
    assert ImageStat.Stat(apart).mean == pytest.approx([0, 0, 0], abs=5)

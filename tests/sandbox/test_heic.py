"""The HEIC files we write for demo and tests are read by an independent decoder."""

from __future__ import annotations

import pi_heif
import pytest
from PIL import Image, ImageChops

from sandbox.heic import heic


def decoded(data: bytes) -> Image.Image:
    """The pixels, by libheif."""
    image: Image.Image = pi_heif.open_heif(data).to_pillow()
    return image.convert("RGB")


def slope(width: int, height: int) -> Image.Image:
    """A grey picture whose every pixel differs a little from its neighbours."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return ImageChops.add(across, down, 2).convert("RGB")


@pytest.mark.parametrize("tile", [0, 16, 32, 64])
@pytest.mark.parametrize("size", [(16, 16), (2, 2), (48, 32), (50, 34), (51, 35), (160, 144), (640, 426)])
def test_every_pixel_comes_back(size: tuple[int, int], tile: int) -> None:
    if tile and max(size) > 256:
        tile *= 8
    back = decoded(heic(slope(*size), tile=tile))
    assert back.size == (size[0] // 2 * 2, size[1] // 2 * 2)
    difference = ImageChops.difference(back, slope(*size).crop((0, 0, *back.size)))
    # What rounding to YCbCr and back costs.
    assert max(difference.tobytes()) <= 1


@pytest.mark.parametrize("colour", ["red", "lime", "blue", "#8899aa", "white"])
def test_colours_come_back(colour: str) -> None:
    difference = ImageChops.difference(
        decoded(heic(Image.new("RGB", (34, 34), colour))), Image.new("RGB", (34, 34), colour)
    )
    assert max(difference.tobytes()) <= 2


def test_bytes_that_look_like_a_start_code_come_back() -> None:
    black = Image.new("RGB", (64, 64))
    assert decoded(heic(black)).getextrema() == ((0, 0), (0, 0), (0, 0))


@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize(("turns", "size"), [(0, (64, 32)), (1, (32, 64)), (2, (64, 32)), (3, (32, 64))])
def test_the_file_says_how_it_is_turned(turns: int, size: tuple[int, int], tile: int) -> None:
    assert decoded(heic(slope(64, 32), quarter_turns=turns, tile=tile)).size == size


def test_the_same_picture_gives_the_same_bytes() -> None:
    assert heic(slope(64, 32), exif=b"MM\0*") == heic(slope(64, 32), exif=b"MM\0*")

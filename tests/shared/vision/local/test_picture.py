from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from shared.vision.local.picture import measure, quality
from tests.shared.vision import drawings

LARGE = {"width": 4000, "height": 3000}


def _graded(picture: Image.Image, *, width: int = 4000, height: int = 3000) -> tuple[str, list[str]]:
    return quality(measure(picture), width=width, height=height)


def _exposed(picture: Image.Image, stops: float) -> Image.Image:
    """The picture as a camera would have taken it with more or less light."""
    light = (np.asarray(picture, np.float64) / 255) ** 2.2 * 2.0**stops
    return Image.fromarray((np.clip(light, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8))


def test_a_sharp_picture_in_good_light_is_good() -> None:
    assert _graded(drawings.picket_fence()) == ("gut", [])


def test_blur_makes_it_mediocre_and_then_bad() -> None:
    fence = drawings.picket_fence().resize((1000, 750))
    grades = [_graded(fence.filter(ImageFilter.GaussianBlur(radius))) for radius in (2, 5)]
    assert grades == [("mittel", ["leicht unscharf"]), ("schlecht", ["unscharf"])]


def test_too_little_light_makes_it_mediocre_and_then_bad() -> None:
    clock = drawings.clock()
    assert [_graded(_exposed(clock, stops)) for stops in (-3, -4)] == [
        ("mittel", ["dunkel"]),
        ("schlecht", ["sehr dunkel"]),
    ]


def test_burnt_out_pictures_are_told() -> None:
    assert _graded(_exposed(drawings.clock(), 2)) == ("schlecht", ["stark überbelichtet"])


def test_few_pixels_are_told_by_the_originals_size_not_the_previews() -> None:
    fence = drawings.picket_fence()
    assert _graded(fence, width=1000, height=900) == ("mittel", ["wenig Pixel"])
    assert _graded(fence, width=300, height=200) == ("schlecht", ["sehr klein"])


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((200, 30, 30), "Rot"),
        ((235, 140, 30), "Orange"),
        ((110, 70, 40), "Braun"),
        ((230, 210, 50), "Gelb"),
        ((60, 140, 60), "Grün"),
        ((60, 180, 180), "Türkis"),
        ((50, 80, 190), "Blau"),
        ((120, 60, 190), "Violett"),
        ((220, 90, 170), "Rosa"),
        ((128, 128, 128), "Grau"),
        ((240, 240, 240), "Weiss"),
        ((12, 12, 12), "Schwarz"),
    ],
)
def test_the_prevailing_colour_has_the_name_people_give_it(rgb: tuple[int, int, int], name: str) -> None:
    assert measure(Image.new("RGB", (200, 100), rgb)).colour == name


def test_a_picture_of_many_colours_has_none() -> None:
    picture = Image.new("RGB", (400, 100))
    for index, rgb in enumerate(((200, 30, 30), (60, 140, 60), (50, 80, 190), (240, 240, 240))):
        picture.paste(rgb, (index * 100, 0, index * 100 + 100, 100))
    assert measure(picture).colour is None


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 3)])
def test_pictures_of_any_size_can_be_measured(size: tuple[int, int]) -> None:
    assert _graded(Image.new("RGB", size, "white"))[0] == "schlecht"

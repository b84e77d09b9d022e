"""Writes the demo's photos: real ones, varied like those of building sites, and three broken ones.

    python -m sandbox.samples FOLDER [--photos N]

The same call writes the same bytes, so publishing twice is publishing the same pictures. Dates, cameras and
positions are made up; `ATTRIBUTION` of `sandbox.sample_sources` names the authors.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from PIL import Image

from sandbox.heic import heic
from sandbox.sample_sources import ATTRIBUTION, SamplesError, sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_PHOTOS: Final = 12
_VARIANT_SIZE: Final = (1280, 960)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Near a Swiss village; degrees and metres above the sea."""

    latitude: float
    longitude: float
    altitude: float


_PLACES: Final = (
    Place(latitude=47.0252, longitude=8.6321, altitude=461),  # Seewen SZ
    Place(latitude=47.0851, longitude=8.4412, altitude=436),  # Küssnacht am Rigi
    Place(latitude=46.8803, longitude=8.6391, altitude=458),  # Altdorf
    Place(latitude=46.9577, longitude=8.3662, altitude=451),  # Stans
    Place(latitude=47.1281, longitude=8.7466, altitude=882),  # Einsiedeln
    Place(latitude=47.1718, longitude=8.1110, altitude=504),  # Sursee
    Place(latitude=46.8963, longitude=8.2467, altitude=473),  # Sarnen
    Place(latitude=47.2244, longitude=8.8175, altitude=409),  # Rapperswil
)
_CAMERAS: Final = (
    ("Apple", "iPhone 14"),
    ("Google", "Pixel 8"),
    ("samsung", "SM-S911B"),
    ("Canon", "Canon EOS 80D"),
)


class _Photo(msgspec.Struct, frozen=True, kw_only=True):
    """How one photo is made."""

    name: str
    source: str
    taken: str | None = None
    """Local time as EXIF writes it."""
    offset: str | None = None
    camera: tuple[str, str] | None = None
    place: Place | None = None
    orientation: int = 1
    variant: int = 0
    """0: the source as it is; else which part of it, and how bright."""


_PHOTOS: Final = (
    _Photo(
        name="IMG_20240512_143322.jpg",
        source="china",
        taken="2024:05:12 14:33:22",
        offset="+02:00",
        camera=_CAMERAS[1],
        place=_PLACES[0],
    ),
    _Photo(
        name="IMG_4711.JPG",
        source="brick",
        taken="2024:05:14 08:02:51",
        offset="+02:00",
        camera=_CAMERAS[0],
        place=_PLACES[0],
        orientation=6,
    ),
    _Photo(
        name="IMG_4712.HEIC",
        source="motorcycle_left",
        taken="2024:05:14 08:05:17",
        offset="+02:00",
        camera=_CAMERAS[0],
        place=_PLACES[0],
        orientation=6,
    ),
    _Photo(
        name="DSCF0042.JPG",
        source="gravel",
        taken="2024:03:27 16:44:09",
        camera=("FUJIFILM", "X-T4"),
    ),
    _Photo(
        name="IMG_0815.JPG",
        source="motorcycle_right",
        taken="2024:06:03 11:20:30",
        camera=_CAMERAS[3],
        place=_PLACES[1],
        orientation=8,
    ),
    _Photo(
        name="Baustelle Altdorf, Kräne am Abend.jpg",
        source="rocket",
        taken="2024:10:29 18:12:40",
        offset="+01:00",
        camera=("SONY", "ILCE-7M4"),
        place=_PLACES[2],
    ),
    _Photo(name="IMG-20240603-WA0007.jpg", source="coffee"),
    _Photo(
        name="PXL_20240611_081502123.jpg",
        source="astronaut",
        taken="2024:06:11 10:15:02",
        offset="+02:00",
        camera=_CAMERAS[1],
        place=_PLACES[3],
    ),
    _Photo(
        name="P1030417.JPG",
        source="camera",
        taken="2024:04:08 09:31:55",
        camera=("Panasonic", "DC-TZ202"),
        orientation=3,
    ),
    _Photo(
        name="Bürokatze Stans.png",
        source="chelsea",
        taken="2024:02:19 12:06:00",
        offset="+01:00",
        place=_PLACES[3],
    ),
    _Photo(
        name="20240718_101544.webp",
        source="flower",
        taken="2024:07:18 10:15:44",
        offset="+02:00",
        camera=_CAMERAS[2],
        place=_PLACES[4],
    ),
    _Photo(
        name="DJI_0042.JPG",
        source="grass",
        taken="2024:08:21 07:48:13",
        camera=("DJI", "FC3582"),
        place=_PLACES[5],
    ),
)
_LOGIN_PAGE: Final = b"""<!DOCTYPE html>
<html lang="de"><head><title>Anmeldung</title></head>
<body><h1>Ihre Sitzung ist abgelaufen</h1><p>Bitte melden Sie sich erneut an.</p></body></html>
"""
# Upright pixels are stored so that a reader who applies the orientation sees them upright again.
_STORED: Final[Mapping[int, Image.Transpose]] = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
_QUARTER_TURNS: Final[Mapping[int, int]] = {1: 0, 3: 2, 6: 3, 8: 1}


class SampleSet(msgspec.Struct, frozen=True, kw_only=True):
    """What was written."""

    folder: Path
    good: tuple[Path, ...]
    broken: tuple[Path, ...]
    """An HTML page, a photo cut off in the middle, an empty file; each named like a photo."""


def prepare(folder: Path, *, cache: Path, photos: int = DEFAULT_PHOTOS) -> SampleSet:
    """Write `photos` different good photos and three broken ones into a folder.

    The first 12 are of four formats and come from phones, cameras and a drone; more are JPEGs of 1.2
    megapixels, each another part of one of them. `cache` is where the sources are kept. Raises SamplesError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {name: _decoded(path) for name, path in sources(cache).items()}
    plans = [*_PHOTOS[:photos], *_variants(photos - len(_PHOTOS))]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        good = tuple(pool.map(partial(_write, folder, pictures), plans))
    whole = _encoded(_PHOTOS[1], pictures)
    broken = {
        "IMG_4720.jpg": _LOGIN_PAGE,
        "IMG_4721.JPG": whole[: len(whole) * 6 // 10],
        "IMG_4722.JPG": b"",
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    return SampleSet(folder=folder, good=good, broken=tuple(folder / name for name in broken))


def _decoded(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("L" if image.mode == "L" else "RGB")


def _variants(number: int) -> Iterator[_Photo]:
    """Plans for further photos: source, date, place, camera and orientation in turn."""
    start = datetime(2024, 1, 8, 7, 30, tzinfo=UTC)
    for variant in range(1, number + 1):
        taken = start + timedelta(minutes=251 * variant % 500_000)
        yield _Photo(
            name=f"IMG_{5000 + variant}.JPG",
            source=_PHOTOS[variant % len(_PHOTOS)].source,
            taken=f"{taken:%Y:%m:%d %H:%M:%S}",
            camera=_CAMERAS[variant % len(_CAMERAS)],
            place=_PLACES[variant % len(_PLACES)],
            orientation=(1, 1, 6, 1, 3, 1, 8)[variant % 7],
            variant=variant,
        )


def _write(folder: Path, pictures: Mapping[str, Image.Image], plan: _Photo) -> Path:
    path = folder / plan.name
    path.write_bytes(_encoded(plan, pictures))
    return path


def _encoded(plan: _Photo, pictures: Mapping[str, Image.Image]) -> bytes:
    """One photo's file."""
    picture = pictures[plan.source]
    if plan.variant:
        picture = _part(picture, plan.variant)
    if plan.orientation in _STORED:
        picture = picture.transpose(_STORED[plan.orientation])
    exif = _exif(plan)
    target = io.BytesIO()
    match Path(plan.name).suffix.lower():
        case ".heic":
            return heic(picture, exif=exif, quarter_turns=_QUARTER_TURNS[plan.orientation], tile=256)
        case ".png":
            picture.save(target, "PNG", exif=exif)
        case ".webp":
            picture.save(target, "WEBP", quality=88, exif=b"Exif\0\0" + exif)
        case _:
            # Without EXIF, as messengers send them on.
            picture.save(target, "JPEG", quality=88, exif=b"Exif\0\0" + exif if exif else b"")
    return target.getvalue()


def _part(picture: Image.Image, variant: int) -> Image.Image:
    """Another part of a picture, a little brighter or darker, at the size of the variants."""
    share = 0.62 + 0.3 * (variant * 0.618 % 1)
    width = min(picture.width, picture.height * _VARIANT_SIZE[0] / _VARIANT_SIZE[1]) * share
    height = width * _VARIANT_SIZE[1] / _VARIANT_SIZE[0]
    left = (picture.width - width) * (variant * 0.755 % 1)
    top = (picture.height - height) * (variant * 0.570 % 1)
    brightness = 0.85 + 0.3 * (variant * 0.414 % 1)
    part = picture.resize(
        _VARIANT_SIZE, Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
    )
    return part.point(lambda value: min(255, round(value * brightness)))


def _exif(plan: _Photo) -> bytes:
    """Return a TIFF structure with what the plan holds; nothing if it holds nothing."""
    if plan.taken is None and plan.place is None:
        return b""
    exif = Image.Exif()
    if plan.camera:
        exif[0x010F], exif[0x0110] = plan.camera
    exif[0x0112] = plan.orientation
    detail = exif.get_ifd(0x8769)
    if plan.taken:
        detail[0x9003] = plan.taken
    if plan.offset:
        detail[0x9011] = plan.offset
    if plan.place:
        gps = exif.get_ifd(0x8825)
        # A little off for each photo: nobody takes two from the same spot.
        shift = plan.variant % 50 / 100_000
        gps[1], gps[2] = "N", _degrees(plan.place.latitude + shift)
        gps[3], gps[4] = "E", _degrees(plan.place.longitude + shift)
        gps[5], gps[6] = b"\0", plan.place.altitude
    return exif.tobytes().removeprefix(b"Exif\0\0")


def _degrees(value: float) -> tuple[float, float, float]:
    """Degrees, minutes, seconds."""
    minutes, seconds = divmod(round(value * 3600, 2), 60)
    degrees, minutes = divmod(minutes, 60)
    return degrees, minutes, round(seconds, 2)


def main() -> int:
    """Write the samples from the command line."""
    from shared import settings

    parser = argparse.ArgumentParser(
        prog="python -m sandbox.samples",
        description="Writes sample photos, and three broken files, into a folder.",
        epilog=ATTRIBUTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=DEFAULT_PHOTOS, help="how many good ones (default: 12)")
    arguments = parser.parse_args()
    if arguments.photos < 1:
        parser.error("--photos: at least 1")
    try:
        cache = settings.cache_folder(settings.load())
        written = prepare(arguments.folder, cache=cache, photos=arguments.photos)
    except (SamplesError, settings.SettingsError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(
        f"{len(written.good)} photos and {len(written.broken)} broken files are in {written.folder}\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

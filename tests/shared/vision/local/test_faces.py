"""The face detector with its published weights, on drawings and on the sample photos."""

from __future__ import annotations

import io
import pickle
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageOps

from sandbox.sample_sources import sources
from shared.settings import Settings, SettingsError
from shared.vision.local import face_weights
from shared.vision.local.faces import SURE, FaceFinder
from shared.vision.local.weights import WeightsError
from tests.shared.vision import drawings

if TYPE_CHECKING:
    from collections.abc import Mapping

CACHE = Path(Settings().cache_dir).expanduser()
"""The developer's own, so that the packages are downloaded once."""


class _Ran(Exception):  # noqa: N818  it is the sign that foreign code ran, not an error
    """What the hostile pickle below would do."""


def _raise() -> None:
    raise _Ran


class _Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return (_raise, ())


@pytest.fixture(scope="session")
def photos() -> Mapping[str, Path]:
    return sources(CACHE)


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first finder puts its models."""
    return tmp_path_factory.mktemp("networks")


@pytest.fixture
async def finder(networks: Path) -> FaceFinder:
    opened = FaceFinder(networks)
    await opened.open()
    return opened


def _photo(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        return opened.convert("RGB")


def _written(folder: Path) -> Mapping[str, int]:
    """What lies in a folder, and since when."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_drawn_face_is_seen_and_never_with_certainty(finder: FaceFinder) -> None:
    preview = drawings.jpeg(drawings.face())
    with Image.open(io.BytesIO(preview)) as picture:
        assert SURE <= finder.surest(picture) < 1
    assert finder.look(preview) == 0.99


@pytest.mark.parametrize("name", ["astronaut", "camera"])
def test_a_photographed_face_is_seen_mirrored_darker_and_without_colour_too(
    finder: FaceFinder, photos: Mapping[str, Path], name: str
) -> None:
    photo = _photo(photos[name])
    for version in (
        photo,
        ImageOps.mirror(photo),
        photo.point(lambda value: value * 0.5),
        photo.convert("L").convert("RGB"),
    ):
        assert finder.surest(version) >= SURE


@pytest.mark.parametrize(
    "name",
    ["brick", "chelsea", "china", "coffee", "flower", "grass", "gravel", "motorcycle_left", "rocket"],
)
def test_where_nobody_is_nothing_is_said(finder: FaceFinder, photos: Mapping[str, Path], name: str) -> None:
    assert finder.look(drawings.jpeg(_photo(photos[name]))) is None


@pytest.mark.parametrize("draw", [drawings.clock, drawings.picket_fence, drawings.nothing])
def test_a_drawn_thing_is_no_face(finder: FaceFinder, draw: type[Image.Image]) -> None:
    assert finder.look(drawings.jpeg(draw())) is None


def test_a_small_face_is_seen_and_one_below_the_smallest_is_not_even_looked_at(finder: FaceFinder) -> None:
    scene = Image.new("RGB", (1024, 768), (120, 150, 180))
    # hair to chin are 0.7 of the drawing
    scene.paste(drawings.face().resize((20, 20)), (500, 300))
    assert finder.surest(scene) == 0
    scene.paste(drawings.face().resize((100, 100)), (500, 300))
    assert finder.surest(scene) >= SURE


@pytest.mark.parametrize("size", [(1, 1), (3000, 8), (8, 3000), (11, 11)])
def test_a_picture_that_is_too_small_for_a_face_has_none(finder: FaceFinder, size: tuple[int, int]) -> None:
    assert finder.look(drawings.jpeg(Image.new("RGB", size))) is None


async def test_the_first_start_converts_the_weights_and_the_second_takes_what_is_there(
    tmp_path: Path,
) -> None:
    await FaceFinder(tmp_path).open()
    written = _written(tmp_path)
    assert sorted(name.split("-")[1] for name in written) == ["onet", "pnet", "rnet"]
    await FaceFinder(tmp_path).open()
    assert _written(tmp_path) == written


async def test_another_weights_file_is_refused_before_it_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "onet.lz4"
    changed.write_bytes(pickle.dumps(_Hostile()))
    real = face_weights.weights_path
    monkeypatch.setattr(
        face_weights, "weights_path", lambda network: changed if network == "onet" else real(network)
    )
    with pytest.raises(WeightsError, match=r"onet\.lz4 has the sha256 .*reinstall mtcnn==1\.0\.0"):
        await FaceFinder(tmp_path / "cache").open()


async def test_without_the_weights_package_the_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(face_weights, "_PACKAGE", "no_such_package")
    with pytest.raises(SettingsError, match=r"pip install 'erni-foto-agency\[vision-faces\]'"):
        await FaceFinder(tmp_path).open()


def test_a_finder_that_was_not_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"call open\(\) first"):
        FaceFinder(tmp_path).look(drawings.jpeg(drawings.face()))


def test_a_look_has_an_end_even_where_every_place_looks_like_a_face(finder: FaceFinder) -> None:
    tiles = Image.fromarray(np.tile(np.asarray(drawings.face().resize((32, 32))), (32, 32, 1)))
    times = []
    for _ in range(3):
        # this thread's own time, whatever else the machine is doing; the sessions have no other thread
        begun = time.thread_time()
        finder.surest(tiles)
        times.append(time.thread_time() - begun)
    assert min(times) < 1

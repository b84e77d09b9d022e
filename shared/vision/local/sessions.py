"""A converted model: made once into the cache folder, run on one thread."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import onnxruntime  # type: ignore[import-untyped]  # ships without types; Session says what is used
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

log = structlog.get_logger()


class Session(Protocol):
    """What is used of an onnxruntime session; `run` may be called from several threads."""

    def run(self, outputs: None, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs for the inputs, by name."""


def cached_session(path: Path, convert: Callable[[], bytes]) -> Session:
    """A session on the cached model, which is made if it is missing or cannot be read.

    Several processes may do this at once: each writes a file of its own and renames it into place. Raises
    what `convert` raises.
    """
    if path.is_file():
        try:
            return _session(str(path))
        except Exception as error:  # noqa: BLE001  onnxruntime's exceptions have no common base but this
            log.warning("the cached model cannot be read: making it again", path=str(path), error=str(error))
    model = convert()
    try:
        _write(path, model)
    except OSError as error:
        log.warning(
            "the model cannot be kept in CACHE_DIR: it is made at every start",
            path=str(path),
            error=str(error),
        )
    return _session(model)


def _write(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, whoever else writes it and whenever power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _session(model: str | bytes) -> Session:
    """A session on a file, which is not read into our memory as well, or on the bytes of one."""
    options = onnxruntime.SessionOptions()
    # 30 MB less for one picture at a time, which is not slower without
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # processes are what scales: a process that takes all cores slows its neighbours
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session: Session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session

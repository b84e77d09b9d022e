"""Run a converted ONNX model on one thread; convert it once into the cache folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import onnxruntime  # type: ignore[import-untyped]  # ships without types; Session declares what is used
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

log = structlog.get_logger()


class Session(Protocol):
    """Declare the used part of an onnxruntime session. Several threads may call `run`."""

    def run(self, outputs: None, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs for the inputs by name."""


def cached_session(path: Path, convert: Callable[[], bytes]) -> Session:
    """Return a session on the cached model. Convert the model if it is missing or cannot be read.

    Several processes may do this at once: each writes its own file and renames it into place. Raises what
    `convert` raises.
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
    """Write a file completely or not at all, even with several writers or a power failure."""
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
    """Return a session on a file, which is not copied into our memory, or on the bytes of a model."""
    options = onnxruntime.SessionOptions()
    # saves 30 MB, and one picture at a time is not slower without it
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # the agent scales by processes; a process that takes all cores slows its neighbours
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session: Session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session

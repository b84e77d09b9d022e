"""Keeps what exporters sent in a file, so that traces survive a restart; the file has a limit."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from google.protobuf.message import (  # type: ignore[import-untyped]  # its stubs are one more dependency
    DecodeError,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

FILE_BYTES: Final = 32 * 1024 * 1024
"""Of one file (about 40,000 spans). Above it the file becomes ``….old``, so there are two of this size."""
_LENGTH_BYTES: Final = 4


class SpanFile:
    """Appends export requests to a file: each is its length (4 bytes, big-endian), then its OTLP bytes."""

    def __init__(self, path: Path, *, max_bytes: int = FILE_BYTES) -> None:
        self._path = path
        self._older = path.with_name(f"{path.name}.old")
        self._max_bytes = max_bytes
        self._file: FileIO | None = None

    def read(self) -> Iterator[ExportTraceServiceRequest]:
        """Yield what is there, the oldest first. What cannot be read, as a half-written end, is left out."""
        for path in (self._older, self._path):
            with contextlib.suppress(OSError, DecodeError):
                yield from _requests(path.read_bytes())

    def append(self, request: ExportTraceServiceRequest) -> None:
        """Write a request. A disk that is full costs only its place in the file: the spans are in memory."""
        wire = request.SerializeToString()
        with contextlib.suppress(OSError):
            file = self._opened()
            end = file.tell()
            record = len(wire).to_bytes(_LENGTH_BYTES, "big") + wire
            try:
                complete = file.write(record) == len(record)
            except OSError:
                complete = False
            if not complete:
                # The next one must not begin behind half a record.
                file.truncate(end)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> FileIO:
        """Return the file to append to. Raises OSError."""
        if self._file is not None and self._file.tell() >= self._max_bytes:
            self.close()
            self._path.replace(self._older)
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            whole = _whole(self._path)
            self._file = self._path.open("ab", buffering=0)
            self._file.truncate(whole)
            self._file.seek(whole)
        return self._file


def _whole(path: Path) -> int:
    """Return how many bytes of a file are whole records: a killed process may leave half of one."""
    with contextlib.suppress(OSError):
        content = path.read_bytes()
        at = 0
        while at + _LENGTH_BYTES <= len(content):
            end = at + _LENGTH_BYTES + int.from_bytes(content[at : at + _LENGTH_BYTES], "big")
            if end > len(content):
                break
            at = end
        return at
    return 0


def _requests(content: bytes) -> Iterator[ExportTraceServiceRequest]:
    at = 0
    while at + _LENGTH_BYTES <= len(content):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(content[at:begin], "big")
        if at > len(content):
            return
        yield ExportTraceServiceRequest.FromString(content[begin:at])

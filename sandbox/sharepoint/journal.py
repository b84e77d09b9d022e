"""Append-only logs of JSON lines: what took place, and which faults were injected."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LineT = TypeVar("LineT", bound=msgspec.Struct)


class Journal(Generic[LineT]):
    """One log. A line is written by one call, so a killed process leaves it whole or, at worst, cut."""

    def __init__(self, path: Path, line_type: type[LineT]) -> None:
        """Open the log, made if missing; the cut last line of a killed process is removed."""
        self.path = path
        self._decoder = msgspec.json.Decoder(line_type)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        whole = path.read_bytes().rfind(b"\n") + 1
        if whole != os.fstat(self._file).st_size:
            os.ftruncate(self._file, whole)

    def append(self, line: LineT) -> None:
        """Add a line."""
        os.write(self._file, msgspec.json.encode(line) + b"\n")

    def __iter__(self) -> Iterator[LineT]:
        """All lines, oldest first."""
        with self.path.open("rb") as lines:
            for line in lines:
                yield self._decoder.decode(line)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

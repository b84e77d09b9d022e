"""Reads the directories of a TIFF file, which is the form of EXIF, from bytes of any quality.

Pillow's own reader warns and drops a whole directory for one bad entry; this one drops the entry. It reads
a bounded number of entries of bounded length, follows no chain, and raises nothing.
"""

from __future__ import annotations

import math
import struct
from typing import Final, TypeAlias

Value: TypeAlias = str | tuple[float, ...]
"""Text of an ASCII, UTF-8 or undefined entry; the numbers of any other. A division by zero is NaN."""
Directory: TypeAlias = dict[int, Value]

_MAX_ENTRIES: Final = 1_000
_MAX_TEXT: Final = 2_000
_MAX_NUMBERS: Final = 16
# TIFF 6.0, section 2, and Exif 3.0 (129, UTF-8): type, bytes of one value, and how `struct` reads it.
_TEXT: Final = frozenset({2, 7, 129})
_FORMATS: Final = {
    1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d",
    13: "I", 129: "s",
}  # fmt: skip
_RATIONALS: Final = frozenset({5, 10})


class Tiff:
    """The bytes of one TIFF structure, such as an EXIF block with or without its `Exif` header."""

    def __init__(self, data: bytes) -> None:
        """Find the byte order; without one there are no directories."""
        # Some writers put the header `Exif\0\0` twice, or none.
        starts = [at for mark in (b"II*\0", b"MM\0*") if (at := data.find(mark, 0, 32)) >= 0]
        self._data = data[min(starts) :] if starts else b""
        self._order = ">" if self._data.startswith(b"MM") else "<"

    def first(self) -> Directory:
        """The directory that the header points to."""
        if len(self._data) < 8:
            return {}
        return self.at(struct.unpack_from(self._order + "I", self._data, 4)[0])

    def below(self, parent: Directory, pointer: int) -> Directory:
        """The directory that an entry of another one points to."""
        match parent.get(pointer):
            case (offset,) if offset > 0:
                return self.at(int(offset))
        return {}

    def at(self, offset: int) -> Directory:
        """The directory at an offset, without the entries that make no sense."""
        data = self._data
        if not 0 < offset <= len(data) - 2:
            return {}
        count = min(struct.unpack_from(self._order + "H", data, offset)[0], _MAX_ENTRIES)
        entries: Directory = {}
        for start in range(offset + 2, min(offset + 2 + 12 * count, len(data) - 11), 12):
            tag, kind, number = struct.unpack_from(self._order + "HHI", data, start)
            if (value := self._value(kind, number, start + 8)) is not None:
                entries.setdefault(tag, value)
        return entries

    def _value(self, kind: int, number: int, start: int) -> Value | None:
        """An entry's value: up to four bytes lie in the entry itself, more where it points to."""
        form = _FORMATS.get(kind)
        if form is None or number == 0:
            return None
        width = struct.calcsize("<" + form)
        if width * number > 4:
            start = struct.unpack_from(self._order + "I", self._data, start)[0]
        if kind in _TEXT:
            return _text(self._data[start : start + min(number, _MAX_TEXT)])
        number = min(number, _MAX_NUMBERS)
        if start + width * number > len(self._data):
            return None
        numbers = struct.unpack_from(self._order + form * number, self._data, start)
        if kind in _RATIONALS:
            return tuple(
                above / below if below else math.nan
                for above, below in zip(numbers[::2], numbers[1::2], strict=True)
            )
        return tuple(float(value) for value in numbers)


def _text(raw: bytes) -> str:
    """Text up to its first NUL; what is not UTF-8 is taken as Latin-1, which older cameras write."""
    raw = raw.split(b"\0", 1)[0]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return "".join(letter for letter in text if letter.isprintable()).strip()

"""Puts the parts of a file that its decoder gets next to each other, without copying the pixels."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from shared.photos.kinds import Data

Pixels: TypeAlias = "Data | memoryview"
"""What a decoder reads. A view keeps the mapping that it shows."""


def framed(data: Data, before: bytes, start: int, end: int, after: bytes = b"") -> Pixels:
    """Return `before`, the bytes of a file from `start` to `end`, and `after`, in a row.

    A writable mapping is changed in place where the two fit: a copy of 60 MB needs 15,000 new pages, which
    takes longer than decoding some photos. So the mapping must be a private one, and nobody may need its
    bytes just before `start` and just behind `end` any more.
    """
    whole = (start - len(before), end + len(after))
    if whole == (0, len(data)) and data[: len(before)] == before and data[end:] == after:
        return data
    if isinstance(data, mmap.mmap) and whole[0] >= 0 and whole[1] <= len(data):
        view = memoryview(data)
        if not view.readonly:
            view[whole[0] : start] = before
            view[end : whole[1]] = after
            return view[slice(*whole)]
    with memoryview(data) as view:
        return b"".join((before, view[start:end], after))

"""Reads and writes the structure of a HEIF file: items, their properties and references. No pixels.

References are to ISO/IEC 14496-12 (the boxes) and 23008-12 (HEIF).
"""

from __future__ import annotations

import struct
from itertools import accumulate
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from shared.photos.kinds import Data

MAX_PROPERTIES: Final = 126
"""As many as a number of seven bits can name; files have about ten."""


Pieces: TypeAlias = tuple[tuple[int, int], ...]

_MAX_PIECES: Final = 32
"""Of one item; writers make one."""


class Reference(msgspec.Struct, frozen=True):
    """States that an item refers to others (8.11.12)."""

    kind: bytes
    """`dimg` for what a grid is made of, `auxl` for what belongs to a picture, and more."""
    start: int
    to: list[int]


class Property(msgspec.Struct, frozen=True):
    """Describes items: their size, how they are coded, how to turn them."""

    name: bytes
    body: bytes


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a file that is written."""

    kind: bytes
    data: bytes
    used: bytes = b""
    """The numbers of its properties, from 1, each plus 0x80 if a reader must understand it."""


def boxes(data: Data, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Each box between two places: its name, and where its body starts and ends (14496-12, 4.2).

    Raises ValueError for one that ends behind `end`.
    """
    while position + 8 <= end:
        size, start = int.from_bytes(data[position : position + 4]), position + 8
        name = data[position + 4 : start]
        if size == 1:
            size, start = int.from_bytes(data[start : start + 8]), start + 8
        last = position + size if size else end
        if not start <= last <= end:
            raise ValueError(f"the box {name!r} ends behind the one it lies in")
        yield name, start, last
        position = last


class Heif:
    """Reads the `meta` box of a file. Raises ValueError, LookupError or struct.error if it makes no sense."""

    def __init__(self, data: Data) -> None:
        self._data = data
        start, end = next((at, to) for name, at, to in boxes(data, 0, len(data)) if name == b"meta")
        self._meta = {name: (at, to) for name, at, to in boxes(data, start + 4, end)}
        self.primary = self._primary()
        self.kinds = self._kinds()
        """By item what it is: `grid`, `hvc1`, `Exif`, …"""
        self.references = self._references()
        self._properties_at = self._within(b"iprp", b"ipco")
        self.properties = [Property(name, data[at:to]) for name, at, to in boxes(data, *self._properties_at)]
        self.used = self._used()
        """By item the numbers of its properties, as `Item.used` has them."""
        self.places = self._places()
        """By item its pieces in the file, each a start and a length."""

    @property
    def packed_properties(self) -> bytes:
        """All properties as they stand in the file."""
        start, end = self._properties_at
        return self._data[start:end]

    def properties_of(self, item: int) -> list[tuple[int, Property]]:
        """An item's own properties, in order, each behind its number."""
        return [(entry, self.properties[(entry & 0x7F) - 1]) for entry in self.used[item] if entry & 0x7F]

    def read(self, pieces: Pieces) -> bytes:
        """The bytes at a place."""
        whole = b"".join(self._data[start : start + length] for start, length in pieces)
        if not whole or len(whole) != sum(length for _, length in pieces):
            raise ValueError("an item is cut off")
        return whole

    def _number(self, at: int, width: int) -> int:
        return int.from_bytes(self._data[at : at + width])

    def _full(self, name: bytes) -> tuple[int, int, int]:
        """A box below `meta`: its version, and where the rest of its body starts and ends."""
        start, end = self._meta[name]
        return self._data[start], start + 4, end

    def _within(self, outer: bytes, inner: bytes) -> tuple[int, int]:
        start, end = self._meta[outer]
        return next((at, to) for name, at, to in boxes(self._data, start, end) if name == inner)

    def _primary(self) -> int:
        """8.11.4."""
        version, at, _ = self._full(b"pitm")
        return self._number(at, 4 if version else 2)

    def _kinds(self) -> Mapping[int, bytes]:
        """8.11.6."""
        version, at, end = self._full(b"iinf")
        kinds = {}
        for _, start, _ in boxes(self._data, at + (4 if version else 2), end):
            width = 2 if self._data[start] == 2 else 4
            place = start + 4 + width + 2
            kinds[self._number(start + 4, width)] = self._data[place : place + 4]
        return kinds

    def _references(self) -> Sequence[Reference]:
        """8.11.12."""
        if b"iref" not in self._meta:
            return ()
        version, at, end = self._full(b"iref")
        width = 4 if version else 2
        found = []
        for kind, start, last in boxes(self._data, at, end):
            count, first = self._number(start + width, 2), start + width + 2
            if first + count * width > last:
                raise ValueError(f"the reference {kind!r} names more items than it holds")
            to = [self._number(first + number * width, width) for number in range(count)]
            found.append(Reference(kind, self._number(start, width), to))
        return found

    def _used(self) -> Mapping[int, bytes]:
        """23008-12, 9.3.2."""
        if len(self.properties) > MAX_PROPERTIES:
            raise ValueError(f"{len(self.properties)} properties, more than {MAX_PROPERTIES}")
        at, _ = self._within(b"iprp", b"ipma")
        width, step = (4 if self._data[at] else 2), (2 if self._number(at + 1, 3) & 1 else 1)
        count, at = self._number(at + 4, 4), at + 8
        used: dict[int, bytes] = {}
        for _ in range(min(count, len(self.kinds))):
            item, entries = self._number(at, width), self._data[at + width]
            at += width + 1
            numbers = (self._number(at + number * step, step) for number in range(entries))
            used[item] = bytes(
                number >> 8 & 0x80 | number & 0x7F if step == 2 else number for number in numbers
            )
            at += entries * step
        return used

    def _places(self) -> Mapping[int, Pieces]:
        """8.11.3."""
        version, at, _ = self._full(b"iloc")
        sizes = self._number(at, 2)
        offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        wide = 4 if version == 2 else 2
        count, at = self._number(at + 2, wide), at + 2 + wide
        places: dict[int, Pieces] = {}
        for _ in range(min(count, len(self.kinds))):
            item, at = self._number(at, wide), at + wide
            method = 0
            if version:
                method, at = self._number(at, 2) & 15, at + 2
            start, at = self._number(at + 2, base), at + 2 + base
            if method == 1:  # within the box `idat`
                start += self._meta[b"idat"][0]
            extents, at = self._number(at, 2), at + 2
            if extents > _MAX_PIECES:
                raise ValueError(f"item {item} lies in {extents} pieces")
            pieces = []
            for _ in range(extents):
                at += index if version else 0
                pieces.append((start + self._number(at, offset), self._number(at + offset, length)))
                at += offset + length
            if method < 2:
                places[item] = tuple(pieces)
        return places


def heif_file(items: Sequence[Item], properties: bytes, references: Sequence[Reference] = ()) -> bytes:
    """A file of items, numbered from 1; the first one is its picture.

    `properties` are boxes in a row. Equal bytes of several items are stored once.
    """
    head = box(b"ftyp", b"heic\0\0\0\0mif1heic")
    numbered = list(enumerate(items, 1))
    entries = [
        full_box(b"infe", struct.pack(">HH", number, 0), item.kind, b"\0", version=2)
        for number, item in numbered
    ]
    kept = [(number, item.used) for number, item in numbered if item.used]
    owned = b"".join(struct.pack(">HB", number, len(used)) + used for number, used in kept)
    hangs = [
        box(each.kind, struct.pack(f">HH{len(each.to)}H", each.start, len(each.to), *each.to))
        for each in references
    ]
    bodies = dict.fromkeys(item.data for item in items)  # each once
    place, meta = 0, b""
    # The items' places depend on the length of the box that holds them, which does not depend on the places.
    for _ in range(2):
        starts = dict(zip(bodies, accumulate(map(len, bodies), initial=place), strict=False))
        places = [
            struct.pack(">HHHII", number, 0, 1, starts[item.data], len(item.data))
            for number, item in numbered
        ]
        meta = full_box(
            b"meta",
            full_box(b"hdlr", b"\0\0\0\0pict", bytes(13)),
            full_box(b"pitm", struct.pack(">H", 1)),
            full_box(b"iinf", struct.pack(">H", len(items)), *entries),
            full_box(b"iref", *hangs) if hangs else b"",
            box(
                b"iprp",
                box(b"ipco", properties),
                full_box(b"ipma", struct.pack(">I", len(kept)), owned),
            ),
            full_box(b"iloc", b"\x44\x00", struct.pack(">H", len(items)), *places),
        )
        place = len(head) + len(meta) + 8
    return head + meta + box(b"mdat", *bodies)


def box(name: bytes, *parts: bytes) -> bytes:
    """A box (14496-12, 4.2)."""
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + name + body


def full_box(name: bytes, *parts: bytes, version: int = 0) -> bytes:
    """A box that has a version, and no flags."""
    return box(name, struct.pack(">I", version << 24), *parts)

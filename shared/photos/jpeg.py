"""Reads how a JPEG is stored, without decoding it (ITU-T T.81, annex B).

Cameras, phones and editors leave bytes between the segments of the header, write another picture or a film
behind the last one, or forget the end marker. A decoder passes over all of that. So the picture's own bytes
are found here: limits are measured over them, and the decoder gets them alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from shared.photos.own_bytes import framed

if TYPE_CHECKING:
    from shared.photos.kinds import Data
    from shared.photos.own_bytes import Pixels


# Start of frame, in all its forms (table B.1): C4, C8 and CC are something else.
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_START, _END, _SCAN, _JFIF, _APP1, _ICC, _ADOBE = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE
# Markers without a segment behind them: restarts, TEM, the start of a picture, a stuffed zero.
_ALONE: Final = frozenset({*range(0xD0, 0xD8), 0x01, _START, 0x00})
# What decoding needs of the header: frames, tables, restart interval, colour. Not EXIF, which libvips would
# read with a library of its own, nor comments.
_NEEDED: Final = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDC, 0xDD, _SCAN, _JFIF, _ICC, _ADOBE})
_TABLES: Final = frozenset({0xC4, 0xCC, 0xDB, 0xDD, 0xDC, 0xFE, *range(0xE0, 0xF0)})
"""What may stand between two scans."""
# A pattern, because it is found twice as fast as by `find`.
_PICTURE_END: Final = re.compile(rb"\xff\xd9")
# In a scan every 256th byte is an FF, nearly always one with a stuffed zero behind it.
_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)


class Segment(msgspec.Struct, frozen=True):
    """One segment of the header, its marker included."""

    marker: int
    start: int
    end: int


class JpegLayout(msgspec.Struct, frozen=True, kw_only=True):
    """Where the parts of a JPEG lie, as far as its first scan tells."""

    segments: tuple[Segment, ...]
    """Of the header, up to and with the one that starts the first scan."""
    layers: tuple[tuple[int, int, int], ...]
    """By component its number and its samples across and down, in relation to the others."""
    progressive: bool
    buffered: bool
    """Whether the picture comes in several scans, so that a decoder keeps all of it."""
    end: int | None
    """Where the picture ends, behind its end marker; None if it has none."""

    @property
    def samples(self) -> float:
        """Values stored for a pixel, over all components: 1.5 where colour is stored at half the size."""
        widest, highest = max(across for _, across, _ in self.layers), max(down for *_, down in self.layers)
        return sum(across * down for _, across, down in self.layers) / max(1, widest * highest)

    @property
    def scan(self) -> int:
        """Where the first scan's data starts."""
        return self.segments[-1].end


def layout_of(data: Data) -> JpegLayout | None:
    """Read the layout of a JPEG's bytes; None if its header makes no sense, which its decoder finds too."""
    position, progressive = 2, False
    layers: list[tuple[int, int, int]] = []
    segments: list[Segment] = []
    while (start := data.find(b"\xff", position)) >= 0:
        place = start + 1
        while data[place : place + 1] == b"\xff":  # fill bytes
            place += 1
        if place + 3 > len(data):
            return None
        marker, end = data[place], place + 1 + int.from_bytes(data[place + 1 : place + 3])
        if marker in _ALONE:
            position = place + 1
            continue
        body = data[place + 3 : end]
        if marker == _END or end < place + 3:
            return None
        segments.append(Segment(marker, place - 1, end))
        if marker == _SCAN:
            if not layers or not body:
                return None
            found = _PICTURE_END.search(data, end)
            return JpegLayout(
                segments=tuple(segments),
                layers=tuple(layers),
                progressive=progressive,
                # A scan names its components; fewer than the picture has means that more scans follow.
                buffered=progressive or body[0] < len(layers),
                end=found.end() if found else None,
            )
        if marker in _FRAMES:
            progressive = marker in _PROGRESSIVE
            parts = body[6 : 6 + 3 * body[5]] if len(body) > 5 else b""
            layers = [
                (parts[at], parts[at + 1] >> 4, parts[at + 1] & 15) for at in range(0, len(parts) - 2, 3)
            ]
        position = end
    return None


def exif_of(data: Data, layout: JpegLayout) -> bytes:
    """Return the first EXIF block; empty if there is none."""
    for segment in layout.segments:
        if segment.marker == _APP1 and data[segment.start + 4 : segment.start + 9] == b"Exif\0":
            return data[segment.start + 4 : segment.end]
    return b""


def picture_of(data: Data, layout: JpegLayout) -> Pixels:
    """Return the JPEG again with its picture alone: what the decoder needs, and an end marker.

    The decoder warns about oddities of the header and reports its first warning only, so without them that
    one is about the pixels.
    """
    # A JFIF segment of a version other than 1 is not understood, and not needed; it stands 9 bytes in.
    needed = [
        each
        for each in layout.segments
        if each.marker in _NEEDED
        and (each.marker != _JFIF or data[each.start + 9 : each.start + 10] == b"\1")
    ]
    head = b"".join(data[each.start : each.end] for each in needed)
    if not layout.progressive:  # where there is but one value for the last three bytes, some write another
        head = head[:-3] + b"\0\x3f\0"
    end = b"" if layout.end else b"\xff\xd9"
    return framed(data, b"\xff\xd8" + head, layout.scan, layout.end or len(data), end)


def scans_of(data: Data, layout: JpegLayout) -> tuple[bytes, ...]:
    """Return the parameters of each scan of the picture (B.2.3), without the number of its components.

    Stops where the bytes are no JPEG's any more, as behind a picture without an end marker.
    """
    scans = [data[layout.segments[-1].start + 4 : layout.scan]]
    position, stop = layout.scan, layout.end or len(data)
    while found := _MARKER.search(data, position, stop):
        marker, position = data[found.start() + 1], found.end()
        if marker == _END or (marker != _SCAN and marker not in _TABLES):
            break
        end = position + int.from_bytes(data[position : position + 2])
        if marker == _SCAN:
            scans.append(data[position + 2 : end])
        position = end
    return tuple(scans)


def missing_scans(scans: tuple[bytes, ...], layout: JpegLayout) -> bool:
    """Report whether scans are missing: a component, or the last digits of a progressive picture.

    A photo that was cut off between two scans decodes without a warning.
    """
    numbers = {number for number, *_ in layout.layers}
    open_ = {number: set(range(64)) if layout.progressive else {0} for number in numbers}
    for scan in scans:
        count = scan[0] if scan else 0
        if len(scan) < 4 + 2 * count:
            return True
        first, last, digits = scan[1 + 2 * count : 4 + 2 * count]
        if not layout.progressive:
            first, last, digits = 0, 0, 0
        if digits & 15 == 0:
            for number in scan[1 : 1 + 2 * count : 2]:
                open_.get(number, set()).difference_update(range(first, last + 1))
    return any(open_.values())

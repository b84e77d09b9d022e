"""Reads from a JPEG's header how it is stored, which decides what decoding takes."""

from __future__ import annotations

from typing import Final

import msgspec

# Start of frame, in all its forms (ITU-T T.81, table B.1): C4, C8 and CC are something else.
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SCAN: Final = 0xDA


class JpegFrame(msgspec.Struct, frozen=True, kw_only=True):
    """What the header states before the first scan."""

    samples: float
    """Values stored for a pixel, over all its components: 1.5 where colour is stored at half the size."""
    buffered: bool
    """Whether the picture comes in several scans, so that a decoder keeps all of it."""
    scan: int
    """Where the first scan starts: behind it, the bytes FF D9 are the end."""


def frame_of(data: bytes) -> JpegFrame | None:
    """The frame of a JPEG's bytes; None if its header makes no sense, which its decoder finds too."""
    position, progressive = 2, False
    layers: list[tuple[int, int]] = []
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        body = data[position + 4 : end]
        if marker == _SCAN:
            if not layers or not body:
                return None
            widest, highest = max(across for across, _ in layers), max(down for _, down in layers)
            return JpegFrame(
                samples=sum(across * down for across, down in layers) / max(1, widest * highest),
                # A scan names its components; fewer than the picture has means that more scans follow.
                buffered=progressive or body[0] < len(layers),
                scan=end,
            )
        if marker in _FRAMES:
            progressive = marker in _PROGRESSIVE
            layers = [(part >> 4, part & 15) for part in body[7::3]]
        position = end
    return None

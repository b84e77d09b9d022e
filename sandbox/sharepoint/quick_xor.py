"""quickXorHash, the only content hash that SharePoint reports.

160 bits; byte number i is XORed in at bit ``11 * i mod 160``, and at the end the length (64 bit, little
endian) is XORed into the last eight bytes. Source: Microsoft's description in "hashes resource type".
"""

from __future__ import annotations

import base64

_BITS = 160
_SHIFT = 11
_MASK = (1 << _BITS) - 1
# 11 and 160 have no common divisor, so after 160 bytes the positions start again: bytes 160 apart can be
# XORed as whole blocks first, by big integers at memory speed.
_PERIOD = 160
_FOLD = _PERIOD * 1024


class QuickXor:
    """The hash of a stream of bytes, fed in pieces of any size."""

    def __init__(self) -> None:
        self._block = 0
        self._length = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        lead = self._length % _PERIOD
        self._length += len(view)
        for start in range(0, len(view), _FOLD):
            number = int.from_bytes(view[start : start + _FOLD], "little")
            width = _FOLD
            while width > _PERIOD:
                width = (width // _PERIOD + 1) // 2 * _PERIOD
                number = (number & ((1 << 8 * width) - 1)) ^ (number >> 8 * width)
            # `number` starts at a byte position of the stream that is `lead` modulo the period
            number <<= 8 * lead
            self._block ^= (number & ((1 << 8 * _PERIOD) - 1)) ^ (number >> 8 * _PERIOD)

    def digest(self) -> bytes:
        """The 20 bytes of the hash so far."""
        result = 0
        for index, byte in enumerate(self._block.to_bytes(_PERIOD, "little")):
            result ^= byte << (_SHIFT * index % _BITS)
            if result > _MASK:
                result = (result & _MASK) ^ (result >> _BITS)
        result ^= self._length << (_BITS - 64)
        return (result & _MASK).to_bytes(_BITS // 8, "little")

    def base64(self) -> str:
        """The hash as Graph writes it."""
        return base64.b64encode(self.digest()).decode()

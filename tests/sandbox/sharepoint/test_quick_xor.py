"""quickXorHash against the definition, written out bit by bit."""

from __future__ import annotations

import base64
import random
import time

import pytest

from sandbox.sharepoint.quick_xor import QuickXor

# (content, hash): the shape of the published vectors; 0 bytes, 1 byte, 2 bytes
VECTORS = [
    ("", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    ("Sg==", "SgAAAAAAAAAAAAAAAQAAAAAAAAA="),
    ("tbQ=", "taAFAAAAAAAAAAAAAgAAAAAAAAA="),
]


def by_definition(data: bytes) -> bytes:
    """Every bit of byte i goes to position (11 i + bit) mod 160; the length into the last 64 bits."""
    bits = [0] * 160
    for index, byte in enumerate(data):
        for bit in range(8):
            bits[(11 * index + bit) % 160] ^= byte >> bit & 1
    result = bytearray(20)
    for position, bit in enumerate(bits):
        result[position // 8] |= bit << position % 8
    for index, byte in enumerate(len(data).to_bytes(8, "little")):
        result[12 + index] ^= byte
    return bytes(result)


@pytest.mark.parametrize(("content", "expected"), VECTORS)
def test_known_vectors(content: str, expected: str) -> None:
    quick_xor = QuickXor()
    quick_xor.update(base64.b64decode(content))
    assert quick_xor.base64() == expected


@pytest.mark.parametrize(
    "size", [*range(1, 325, 9), 159, 160, 161, 319, 320, 163_839, 163_840, 163_841, 400_001]
)
def test_any_size_agrees_with_the_definition(size: int) -> None:
    data = random.Random(size).randbytes(size)
    quick_xor = QuickXor()
    quick_xor.update(data)
    assert quick_xor.digest() == by_definition(data)


def test_pieces_of_any_size_give_the_same_hash() -> None:
    data = random.Random(1).randbytes(500_000)
    whole, pieces = QuickXor(), QuickXor()
    whole.update(data)
    rest, step = memoryview(data), 1
    while rest:
        pieces.update(rest[:step])
        rest, step = rest[step:], step * 3 + 1
    assert pieces.digest() == whole.digest()


def test_eight_megabytes_take_a_fraction_of_a_second() -> None:
    data = bytes(8 << 20)
    started = time.perf_counter()
    QuickXor().update(data)
    assert time.perf_counter() - started < 0.5

"""Makes glibc return freed memory to the system, so that one photo does not add to what the next one takes.

Otherwise the vision agent, 180 MB with its model, stood at 310 MB after a few large photos, and needed
another 150 MB for the next one. Other C libraries have no such calls and need none.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_MMAP_THRESHOLD: Final = -3
"""M_MMAP_THRESHOLD of malloc.h: from which size on a block is one of its own, and goes when it is freed. By
itself it grows up to 32 MB with what is freed; set once, it stays."""
_BLOCK: Final = 1 << 20

_ARENA_MAX: Final = -8
"""M_ARENA_MAX: how many threads may have a heap of their own, each of which reserves 64 MB of addresses."""

with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _BLOCK)


def release_memory() -> None:
    """Return all free pages to the system. Takes about 4 ms."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def use_one_arena() -> None:
    """Let all threads share one heap, so that a limit of addresses is a limit of memory."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)

"""Sends mutated photos to a decoder: none may end it for another photo, or take more than is promised.

python -m tests.shared.photos.fuzz [--minutes 60] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shared.photos.decoders import Decoders
from shared.retry.errors import PermanentError
from tests.shared.photos.bombs import BOMBS
from tests.shared.photos.pictures import jpeg
from tests.shared.photos.test_decoders import processes
from tests.shared.photos.test_open import GOOD

if TYPE_CHECKING:
    from collections.abc import Sequence

MEMORY_MB: Final = 330
"""Of the decoder: with its agent it stays below 400 MB."""
_NUMBERS: Final = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff", b"\0\1\0\0")


def corpus() -> list[bytes]:
    """Photos of every kind, and the bombs."""
    return [data for data, *_ in GOOD.values()] + [
        make() for name, make in BOMBS.items() if name != "tiles.heic"
    ]


def mutated(draw: random.Random, photos: Sequence[bytes]) -> bytes:
    """One of the photos with some bytes, numbers or blocks changed."""
    data = bytearray(draw.choice(photos))
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(min(len(data), draw.choice((200, 2_000, len(data)))))
        match draw.randrange(5):
            case 0:
                data[at] = draw.randrange(256)
            case 1:
                data[at : at + 4] = draw.choice(_NUMBERS)
            case 2:
                data[at:at] = data[at : at + draw.randrange(1, 500)] * draw.randrange(1, 20)
            case 3:
                del data[at : at + draw.randrange(1, 500)]
            case _:
                data[at:at] = draw.choice(photos)[: draw.randrange(1, 2_000)]
        if not data:
            return b"\xff\xd8\xff"
    return bytes(data)


async def run(seconds: float, seed: int) -> dict[str, int]:
    """Send mutants for so long; return how many were taken and refused. Raises what is no refusal."""
    draw, photos = random.Random(seed), corpus()
    counted = {"taken": 0, "refused": 0}
    stop = time.monotonic() + seconds
    async with Decoders() as decoders:
        while time.monotonic() < stop:
            mutant = mutated(draw, photos)
            try:
                await decoders.examine(mutant)
                await decoders.preview(mutant)
                counted["taken"] += 1
            except PermanentError:
                counted["refused"] += 1
            except Exception:
                keep(mutant)
                raise
            for process in processes():
                if memory_of(process.pid) > MEMORY_MB:
                    keep(mutant)
                    raise MemoryError(f"the decoder took {memory_of(process.pid)} MB")
            # whatever came before, this one is fine
            await decoders.preview(jpeg())
    return counted


def keep(mutant: bytes) -> None:
    """Write the mutant to a file, to be looked at."""
    Path("fuzz-finding.bin").write_bytes(mutant)


def memory_of(process: int) -> int:
    """The most that a process ever needed, in MB; 0 where nothing says so."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024
    except (OSError, IndexError):
        return 0


def main() -> int:
    """Run as long as is asked for, and print the counts."""
    parser = argparse.ArgumentParser(description="Send mutated photos to a decoder.")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.stdout.write(f"{asyncio.run(run(given.minutes * 60, given.seed))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Compares previews with libvips' own thumbnail of the same file, in one run.

Ours hands the bytes to a decoder process, which opens the file, checks its size and its EXIF, converts
colours to sRGB, turns it upright and writes a JPEG without metadata. The CPU of both processes counts. The
yardstick is libvips' own thumbnail of the same side, saved as the same JPEG. Both decode with one thread. The
figures are milliseconds of CPU, the lowest of several interleaved rounds, because other load can only add;
the figure that counts is the ratio.

The libvips that comes with our packages cannot decode HEIC. Where the system has one that can (Debian:
libvips42), that one is the yardstick for HEIC, in a process of its own; otherwise HEIC has none.

    python -m benchmarks.previews [--rounds 7]
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyvips

from sandbox.heic import heic
from shared.photos.decoders import PREVIEW_SIDE, Decoders

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# The decoder process does the same.
pyvips.concurrency_set(1)
pyvips.cache_set_max(0)
RESULTS: Final = Path(__file__).parent / "results"
QUALITY: Final = 85
TARGET: Final = 1.15
"""What ours may take at most, as a multiple of libvips alone."""
SIZE: Final = (6000, 4000)
"""24 megapixels."""
HEIC_SIZE: Final = (4032, 3024)
"""12 megapixels, a phone's. Its blocks are not compressed: a real photo takes longer, on both sides."""

# Reads "file" lines, answers each with the CPU seconds of one thumbnail. The library is called as it is: the
# Python binding in this environment is bound to the bundled one.
_OTHER: Final = """
import ctypes, sys, time
vips = ctypes.CDLL(sys.argv[1])
vips.vips_init(b"")
vips.vips_concurrency_set(1)
vips.vips_cache_set_max(0)
pointer, size, none = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p(None)
data = open(sys.argv[2], "rb").read()
for _ in sys.stdin:
    started = time.process_time()
    image, saved, length = pointer(), pointer(), size()
    side = ctypes.c_int(int(sys.argv[3]))
    failed = vips.vips_thumbnail_buffer(
        data, size(len(data)), ctypes.byref(image), side, b"height", side, b"size", 2, none
    ) or vips.vips_jpegsave_buffer(
        image, ctypes.byref(saved), ctypes.byref(length), b"Q", int(sys.argv[4]), b"strip", 1, none
    )
    print("failed" if failed else time.process_time() - started, flush=True)
    vips.g_free(saved)
    vips.g_object_unref(image)
"""


def photo(width: int, height: int, *, alpha: bool = False) -> pyvips.Image:
    """Make something like a photo: soft shapes with grain, the same every time."""
    shapes = [pyvips.Image.perlin(width, height, cell_size=256, uchar=True, seed=seed) for seed in (1, 2, 3)]
    grain = pyvips.Image.gaussnoise(width, height, sigma=4, mean=0, seed=4)
    bands = [(shape + grain).cast("uchar") for shape in shapes]
    if alpha:
        bands.append(shapes[0])
    joined = bands[0].bandjoin(bands[1:])
    return joined.copy(interpretation="srgb").copy_memory()


def files() -> Mapping[str, bytes]:
    """Return the photos that are made smaller, by their description."""
    plain = photo(*SIZE)
    return {
        "JPEG": plain.jpegsave_buffer(Q=90),
        "JPEG, progressive": plain.jpegsave_buffer(Q=90, interlace=True),
        "PNG": plain.pngsave_buffer(),
        "PNG, transparent": photo(*SIZE, alpha=True).pngsave_buffer(),
        "WebP": plain.webpsave_buffer(Q=85, effort=2),
        "WebP, lossless": plain.webpsave_buffer(lossless=True, effort=0),
        "HEIC": _heic(),
    }


def _heic() -> bytes:
    from PIL import Image

    picture = photo(*HEIC_SIZE)
    return heic(Image.frombytes("RGB", HEIC_SIZE, picture.write_to_memory()), tile=512)


def libvips(data: bytes) -> bytes:
    """Make the yardstick's thumbnail."""
    source = pyvips.Source.new_from_memory(data)
    small = pyvips.Image.thumbnail_source(source, PREVIEW_SIDE, height=PREVIEW_SIDE, size="down")
    return bytes(small.jpegsave_buffer(Q=QUALITY, keep=0))


class SystemLibvips:
    """Run the system's libvips in a process of its own; each call makes one thumbnail."""

    def __init__(self, library: str, file: Path) -> None:
        command = [sys.executable, "-c", _OTHER, library, str(file), str(PREVIEW_SIDE), str(QUALITY)]
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # Python's own view of the environment: the bundled libvips has changed its module path there.
            env=dict(os.environ),
        )

    def seconds(self) -> float | None:
        """Return the CPU seconds of one thumbnail; None if that libvips cannot decode the file."""
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        return None if answer in ("failed", "") else float(answer)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def seconds(work: Callable[[bytes], bytes], data: bytes) -> float:
    """Return the CPU seconds of one call."""
    started = time.process_time()
    work(data)
    return time.process_time() - started


class Ours:
    """Run the decoder process, and the loop of an agent that asks it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._decoders = Decoders()

    def seconds(self, data: bytes) -> float:
        """Return the CPU seconds of one preview, on both sides."""
        started = self._cpu()
        self._loop.run_until_complete(self._decoders.preview(data))
        return self._cpu() - started

    def close(self) -> None:
        """End the process."""
        self._loop.run_until_complete(self._decoders.close())
        self._loop.close()

    def warm_up(self) -> None:
        """Start the process, so that the first preview does not include its start."""
        self._loop.run_until_complete(self._decoders.preview(photo(64, 64).jpegsave_buffer()))

    @staticmethod
    def _cpu() -> float:
        # Linux: the CPU clock of another process, see clock_getcpuclockid(3)
        children = [int(pid) for task in Path("/proc/self/task").iterdir() for pid in _children(task)]
        return time.process_time() + sum(time.clock_gettime(~pid << 3 | 2) for pid in children)


def _children(task: Path) -> list[str]:
    return [
        pid
        for pid in (task / "children").read_text().split()
        if b"shared.photos.decoder_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def measure(name: str, data: bytes, rounds: int, folder: Path) -> dict[str, Any]:
    """Measure one file and return its row."""
    other = None
    if name == "HEIC":
        library = ctypes.util.find_library("vips")
        if library is not None:
            file = folder / "previews.heic"
            file.write_bytes(data)
            other = SystemLibvips(library, file)
    ours, theirs = [], []
    decoder = Ours()
    decoder.warm_up()
    for _ in range(rounds):
        ours.append(decoder.seconds(data))
        if name != "HEIC":
            theirs.append(seconds(libvips, data))
        elif other is not None and (taken := other.seconds()) is not None:
            theirs.append(taken)
    decoder.close()
    if other is not None:
        other.close()
    row = {"megabytes": round(len(data) / 1e6, 1), "ours_ms": round(min(ours) * 1e3)}
    if not theirs:
        return row | {"libvips_ms": None, "ratio": None}
    return row | {"libvips_ms": round(min(theirs) * 1e3), "ratio": round(min(ours) / min(theirs), 2)}


def main() -> int:
    """Print the figures and write them to benchmarks/results/previews.json."""
    parser = argparse.ArgumentParser(description="Previews beside libvips' own thumbnails.")
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = {name: measure(name, data, rounds, Path(folder)) for name, data in files().items()}
    version = ".".join(str(pyvips.version(part)) for part in range(3))
    ratios = [row["ratio"] for row in rows.values() if row["ratio"] is not None]
    result = {"libvips": version, "side": PREVIEW_SIDE, "files": rows, "within": max(ratios) <= TARGET}
    text = json.dumps(result, indent=2)
    (RESULTS / "previews.json").write_text(text + "\n")
    print(text)
    return 0 if result["within"] else 1


if __name__ == "__main__":
    sys.exit(main())

"""Files and answers that are small to send and large to unpack, and the largest photos that are taken."""

from __future__ import annotations

import gzip
import http.server
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from PIL import Image

from sandbox.heic import heic
from tests.shared.photos.pictures import jpeg, saved
from tests.shared.photos.test_open import (
    interlaced_png,
    jpeg_of_size,
    png_header,
    repeated_heic,
    webp_canvas,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEGA: Final = 1 << 20


def refused() -> dict[str, bytes]:
    """By file name: what claims or hides more than is decoded."""
    return {
        "50000 squared.png": png_header(50_000, 50_000),
        "65000 squared.jpg": jpeg_of_size(jpeg(), 65_000, 65_000),
        "canvas.webp": webp_canvas(1 << 24, 1 << 24),
    }


def largest() -> dict[str, bytes]:
    """By file name: photos at the limits of their kinds, in pixels or in bytes."""
    scans = jpeg()
    scan = scans[scans.rindex(b"\xff\xda") : -2]
    noise = Image.frombytes("RGB", (3600, 2700), os.urandom(3600 * 2700 * 3))
    return {
        "120 megapixels.jpg": saved(Image.new("RGB", (10_950, 10_950), "#a06030")),
        "47 megapixels, progressive.jpg": saved(
            Image.new("RGB", (6_900, 6_900), "#306030"), progressive=True
        ),
        "23 megapixels, progressive, all colours.jpg": saved(
            Image.new("RGB", (4_850, 4_850), "#603060"), progressive=True, subsampling=0
        ),
        "119 megapixels, transparent.png": saved(Image.new("RGBA", (16_384, 7_300)), "PNG", compress_level=1),
        "29 megapixels, interlaced.png": interlaced_png(5_470, 5_470),
        "39 megapixels, lossless.webp": saved(
            Image.new("RGBA", (6_320, 6_320), "#6060a080"), "WEBP", lossless=True, method=0
        ),
        # odd, but cheap to decode: what counts is the time that a photo takes
        "ten thousand scans.jpg": scans[:-2] + scan * 10_000 + b"\xff\xd9",
        "10 megapixels.heic": heic(Image.new("RGB", (4_000, 2_400), "#a0a030")),
        "119 megapixels, tiles.heic": repeated_heic(12_000, 9_990),
        **{
            f"noise {number}.jpg": saved(noise.crop((number * 10, 0, 3600, 2700)), quality=93)
            for number in range(8)
        },
    }


class _Bombs(http.server.BaseHTTPRequestHandler):
    """``/zeros.jpg`` is a gigabyte of zeros, gzipped; ``/endless.jpg`` never ends and has no length."""

    protocol_version = "HTTP/1.1"
    zeros: Final = gzip.compress(bytes(_MEGA), 9)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        if self.path.startswith("/zeros"):
            # one gzip member after the other is one gzip file (RFC 1952)
            body = self.zeros * 1024
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self._write(body)
            return
        self.send_header("Connection", "close")
        self.end_headers()
        self._write(b"\xff\xd8\xff\xe0")
        while self._write(bytes(_MEGA)):
            pass

    def _write(self, data: bytes) -> bool:
        try:
            self.wfile.write(data)
        except OSError:
            self.close_connection = True
            return False
        return True

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients that had enough go away; that is what is wanted."""


@contextmanager
def site(handler: type[http.server.BaseHTTPRequestHandler] = _Bombs) -> Iterator[str]:
    """A web site on loopback; its address."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

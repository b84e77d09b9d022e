"""Sends a file's bytes, all of them or the range that was asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, Final

from aiohttp import web

from sandbox.sharepoint.errors import GraphError, not_found

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PIECE: Final = 256 * 1024


async def send(request: web.Request, path: Path, headers: Mapping[str, str]) -> web.StreamResponse:
    """Send the file at `path`. Raises GraphError 404 or 416.

    Not aiohttp's FileResponse: that would send a neighbour named ``x.jpg.gz`` in place of ``x.jpg``.
    """
    file, size = _open(path)
    with file:
        first, end = _range(request, size)
        partial = "Range" in request.headers and (first, end) != (0, size)
        response = web.StreamResponse(status=206 if partial else 200, headers=headers)
        response.content_length = end - first
        response.headers["Accept-Ranges"] = "bytes"
        if partial:
            response.headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
        await response.prepare(request)
        if request.method != "HEAD":
            file.seek(first)
            while first < end and (piece := file.read(min(_PIECE, end - first))):
                first += len(piece)
                await response.write(piece)
        await response.write_eof()
    return response


def _open(path: Path) -> tuple[BinaryIO, int]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise not_found() from None
    return file, os.fstat(file.fileno()).st_size


def _range(request: web.Request, size: int) -> tuple[int, int]:
    """First byte and the one after the last. A range that cannot be read counts as none (RFC 9110, 14.2)."""
    try:
        wanted = request.http_range
    except ValueError:
        return 0, size
    first, end, _ = wanted.indices(size)
    if wanted != slice(None, None, 1) and first >= end:
        raise GraphError(
            416,
            "invalidRange",
            "The range is not within the file.",
            None,
            {"Content-Range": f"bytes */{size}"},
        )
    return first, end

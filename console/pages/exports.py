"""Sends what a page lists as CSV or JSON, row by row, however many there are."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from console.pages import rendering
from console.pages.guard import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_ID: Final = re.compile(r"\d{1,19}-\d{1,19}", re.ASCII)
_FORMULA: Final = re.compile(r"""([;,\t\r\n|"]\s*)(?=[=+\-@])""")
"""Where a formula begins inside a cell for a spreadsheet that separates by another sign than a comma."""
_AT_ONCE: Final = 64_000
"""Bytes that are collected before they are sent."""


def entry_id(text: str) -> str:
    """Return an entry id out of an address; '' for ''. Raises RefusedError for anything else."""
    if text and not _ID.fullmatch(text):
        raise RefusedError("error.address")
    return text


async def send(
    request: web.Request, name: str, columns: Sequence[str], rows: AsyncIterator[Sequence[object]]
) -> web.StreamResponse:
    """Send rows as a file of the format in the address. Raises RefusedError for another format."""
    kind = request.match_info["format"]
    if kind not in ("csv", "json"):
        raise RefusedError("error.no_page", 404)
    answer = web.StreamResponse(
        headers={
            "Content-Type": "text/csv; charset=utf-8" if kind == "csv" else "application/json",
            "Content-Disposition": f'attachment; filename="erni-{name}.{kind}"',
            "Cache-Control": "no-store",
            "Content-Security-Policy": rendering.POLICY,
            **rendering.HEADERS,
        }
    )
    await answer.prepare(request)
    if request.method == "HEAD":
        return answer
    waiting = bytearray()
    async for piece in _csv(columns, rows) if kind == "csv" else _json(columns, rows):
        waiting += piece
        if len(waiting) > _AT_ONCE:
            await answer.write(bytes(waiting))
            waiting.clear()
    await answer.write(bytes(waiting))
    await answer.write_eof()
    return answer


async def _csv(columns: Sequence[str], rows: AsyncIterator[Sequence[object]]) -> AsyncIterator[bytes]:
    text = io.StringIO(newline="")
    # Excel reads UTF-8 only behind a byte order mark
    text.write("\ufeff")
    writer = csv.writer(text)
    writer.writerow(columns)
    async for row in rows:
        writer.writerow([_cell(value) for value in row])
        yield text.getvalue().encode("utf-8", "replace")
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


def _cell(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula (OWASP, CSV injection).

    Nor a part of it: Excel of Switzerland and Germany separates by semicolons, which a cell may hold.
    """
    if not isinstance(value, str):
        return value
    text = _FORMULA.sub(r"\1'", value)
    return f"'{text}" if text[:1] in tuple("=+-@\t\r\n") else text


async def _json(columns: Sequence[str], rows: AsyncIterator[Sequence[object]]) -> AsyncIterator[bytes]:
    begin = b"[\n"
    async for row in rows:
        yield begin + msgspec.json.encode(dict(zip(columns, row, strict=True)))
        begin = b",\n"
    yield b"[]\n" if begin == b"[\n" else b"\n]\n"

"""Rows of a list: one line each, whatever a name is made of, and no wider than the terminal."""

from __future__ import annotations

from typing import Final

from shared.telemetry.printable import printable

_LEAST: Final = 12
"""Cells a name gets on the narrowest terminal."""


def one_line(text: str) -> str:
    """The text on one line: line feeds and tabs as escapes too."""
    return printable(text.replace("\n", "\\n").replace("\t", "\\t"))


def short(name: str, width: int) -> str:
    """A name within so many cells, less its middle: names of a batch begin alike and differ at their end."""
    from rich.cells import cell_len, chop_cells

    if cell_len(name) <= width:
        return name
    tail = width * 2 // 3
    head = chop_cells(name, width - tail - 1)[0]
    # from the back, since only the front can be chopped
    end = chop_cells(name[::-1], tail)[0][::-1]
    return f"{head}…{end}"


def fitted(name: str, width: int | None, beside: int) -> str:
    """A name for a row that has `beside` cells of other things; `width` None: whole, nobody counts cells."""
    return one_line(name) if width is None else short(one_line(name), max(width - beside, _LEAST))


def padded(name: str, width: int) -> str:
    """A name with as many spaces as fill its column."""
    from rich.cells import cell_len

    return name + " " * max(width - cell_len(name), 0)

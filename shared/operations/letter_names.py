"""Says whether a dead letter has the name that somebody looks for, of which they may know only a part.

In what is looked for, a ``*`` stands for any characters; then upper and lower case are alike. No id can hold
a ``*`` (`events.identities`). A gateway of an older version that goes on with an operation of such a filter
finds nothing, rather than too much.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_HASHED: Final = re.compile(r"[0-9a-f]{12}\.[a-z]{3,4}(?![a-z])")
"""The end of a file's name in SharePoint, a part of its content's hash
(`shared.sharepoint.names.stored_name`)."""
_BEFORE: Final = " \t\n/:«»'\""
"""What may stand before such a name in a sentence."""


def is_part(wanted: str | None) -> bool:
    """Return whether only a part of a name is looked for."""
    return wanted is not None and "*" in wanted


def containing(text: str) -> str:
    """Return what to look for to find each name that contains a text; one that holds a ``*`` stays."""
    return text if is_part(text) else f"*{text}*"


def within(wanted: str) -> str:
    """Return what a name must contain where `containing` asked for it; otherwise what is looked for."""
    inner = wanted[1:-1]
    return inner if inner and containing(inner) == wanted else wanted


def is_stored(wanted: str | None) -> bool:
    """Return whether a text ends as the name of a file in SharePoint does."""
    return wanted is not None and any(one.end() == len(wanted) for one in _HASHED.finditer(wanted))


def stored_in(message: str) -> str:
    """Return the name of a file in SharePoint that an error message mentions; '' if there is none."""
    end = _HASHED.search(message)
    if end is None:
        return ""
    begin = max(message.rfind(sign, 0, end.start()) for sign in _BEFORE) + 1
    return message[begin : end.end()]


def fits(wanted: str, name: str | None) -> bool:
    """Return whether a name is the one that is looked for."""
    return name is not None and (name == wanted or (is_part(wanted) and bool(fitting(wanted, (name,)))))


def fitting(wanted: str, names: Iterable[str]) -> list[str]:
    """Return the names that fit a part."""
    first, *between, last = _pieces(wanted)
    if not first and not last and len(between) == 1:
        # what nearly everybody types: quicker, as there may be a hundred thousand names
        return [name for name in names if between[0] in _folded(name)]
    return [name for name in names if _fits(_folded(name), first, between, last)]


def _fits(name: str, first: str, between: list[str], last: str) -> bool:
    at, end = len(first), len(name) - len(last)
    if at > end or not (name.startswith(first) and name.endswith(last)):
        return False
    for piece in between:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


@lru_cache(maxsize=64)
def _pieces(wanted: str) -> tuple[str, ...]:
    return tuple(_folded(wanted).split("*"))


def _folded(text: str) -> str:
    """Return a text as it is compared: macOS writes the letters of its file names in another form (NFD)."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()

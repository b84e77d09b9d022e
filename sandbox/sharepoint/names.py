"""What a file or folder may be called, and how a name that is taken gets another one.

Source: "Addressing driveItems" (reserved characters) and Microsoft's support article on restrictions in
OneDrive and SharePoint.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from sandbox.sharepoint.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Container

MAX_SEGMENT = 255
MAX_PATH = 400
"""Characters of the decoded path from the site's top, as SharePoint counts it."""

_FORBIDDEN = re.compile(r'["*:<>?/\\|\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(?i)con|prn|aux|nul|com\d|lpt\d|\.lock|desktop\.ini")


def check_name(name: str, *, folder: bool = False) -> None:
    """Refuse a name that SharePoint refuses. Raises GraphError 400."""
    if not name:
        raise invalid("The name of the item is empty.", "nameContainsInvalidCharacters")
    if len(name) > MAX_SEGMENT:
        raise invalid(f"The name of the item is longer than {MAX_SEGMENT} characters.", "pathIsTooLong")
    found = _FORBIDDEN.search(name)
    if found:
        raise invalid(
            f"The name of the item contains {found.group()!r}, which is not allowed.",
            "nameContainsInvalidCharacters",
        )
    wrong = (
        name != name.strip(" ")
        or name.startswith("~$")
        or name in (".", "..")
        or "_vti_" in name.lower()
        or _RESERVED.fullmatch(name) is not None
        or (folder and name.endswith("."))
    )
    if wrong:
        raise invalid("The name of the item is reserved or not allowed.", "nameContainsInvalidCharacters")


def check_path(path: str) -> None:
    """Refuse a path, from the site's top on, that is too long. Raises GraphError 400."""
    if len(path) > MAX_PATH:
        raise invalid(f"The path of the item is longer than {MAX_PATH} characters.", "pathIsTooLong")


def free_name(name: str, taken: Container[str]) -> str:
    """The name to take instead of one that is taken: ``x 1.jpg``. `taken` holds case-folded names."""
    path = PurePosixPath(name)
    number = 1
    while (candidate := f"{path.stem} {number}{path.suffix}").casefold() in taken:
        number += 1
    return candidate

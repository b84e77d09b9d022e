"""Makes text that others chose safe to print: it must not steer a terminal or look like lines of ours."""

from __future__ import annotations

import re
from typing import Final

STEERING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""C0 and C1 controls but tab and line feed, the separators of lines and paragraphs, what turns the direction
of writing around, and lone surrogates, which stand for bytes of a name that are not UTF-8."""


def printable(text: str, *, one_line: bool = False) -> str:
    """Return the text with control characters as escapes; with `one_line`, line feeds as well."""
    safe = STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return safe.replace("\n", "\\n") if one_line else safe

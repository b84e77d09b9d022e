"""Compares German words as people type them: case, umlauts and punctuation do not count."""

from __future__ import annotations

import difflib
import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UNSURE: Final = (
    "Prüfen",
    "Zu prüfen",
    "Bitte prüfen",
    "Unbekannt",
    "Unklar",
    "Nicht bestimmt",
    "Nicht bestimmbar",
    "Keine Angabe",
)
"""What a library may call the choice for "nobody knows yet", best first."""

_CLOSE: Final = 0.85
"""Similarity (difflib's ratio) from which two folded texts are one value with a slip in it."""


def fold(text: str) -> str:
    """Return the text without case, accents, punctuation and spaces; ``ä``, ``ae`` and ``a`` become one.

    For comparing only: two different words that fold alike ("Bauer", "Baur") are rare among a column's
    choices, and `match_choice` takes an exact match first.
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    letters = "".join(char for char in plain if char.isalnum())
    return letters.replace("ae", "a").replace("oe", "o").replace("ue", "u")


def match_choice(text: str, choices: Sequence[str], *, close: bool = False) -> str | None:
    """Find the choice that `text` means, or None. `close` also forgives a slip of a letter or two.

    A close match must have the same digits ("C24" is not "C30") and no equally close rival.
    """
    if text in choices:
        return text
    wanted = fold(text)
    if not wanted:
        return None
    same = [choice for choice in choices if fold(choice) == wanted]
    if len(same) == 1:
        return same[0]
    if same or not close:
        return None
    ranked = sorted(
        (
            (difflib.SequenceMatcher(None, wanted, fold(choice)).ratio(), choice)
            for choice in choices
            if _digits(choice) == _digits(text)
        ),
        reverse=True,
    )
    if not ranked or ranked[0][0] < _CLOSE or (len(ranked) > 1 and ranked[1][0] == ranked[0][0]):
        return None
    return ranked[0][1]


def first_choice(wanted: Iterable[str], choices: Sequence[str]) -> str | None:
    """Return the choice for the first of the `wanted` words that is among the choices."""
    return next((found for word in wanted if (found := match_choice(word, choices))), None)


def unsure_word(values: Iterable[str]) -> str | None:
    """Return the value that means "nobody knows yet", as it is written; None if there is none."""
    return next((value for value in values if fold(value) in _UNSURE), None)


def _digits(text: str) -> list[str]:
    return re.findall(r"\d+", text)


_UNSURE: Final = frozenset(map(fold, UNSURE))

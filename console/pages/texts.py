"""Holds every sentence of the console in both languages, and chooses the browser's."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeGuard

import msgspec

from console.pages import formats

if TYPE_CHECKING:
    from collections.abc import Mapping

Language: TypeAlias = Literal["en", "de"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "de")
_FILE: Final = Path(__file__).with_name("texts.json")


class Quoted(str):
    """Words of a process or of a service: they are English, and stand as they are in both languages."""

    __slots__ = ()


class Texts:
    """The sentences of one language."""

    def __init__(self, language: Language) -> None:
        self.language: Language = language
        self._texts = catalogue()

    def __call__(self, key: str, **values: object) -> str:
        """Return a sentence with its values filled in. Raises KeyError for one that does not exist."""
        return self.template(key).format(**values)

    def template(self, key: str) -> str:
        """Return a sentence with the places of its values. Raises KeyError for one that does not exist."""
        return self._texts[key][self.language]

    def has(self, key: str) -> bool:
        """Return whether there is such a sentence."""
        return has(key)

    def count(self, key: str, number: int, **values: object) -> str:
        """Return the sentence for one (`<key>.one`) or for any other number (`<key>.many`)."""
        form = "one" if number == 1 else "many"
        return self(f"{key}.{form}", n=formats.number(number, self.language), **values)


def has(key: str) -> bool:
    """Return whether the catalogue has a sentence."""
    return key in catalogue()


@cache
def catalogue() -> Mapping[str, Mapping[str, str]]:
    """Return all sentences: key → language → text."""
    return msgspec.json.decode(_FILE.read_bytes(), type=dict[str, dict[str, str]])


def is_language(text: str) -> TypeGuard[Language]:
    """Return whether a text names one of our languages."""
    return text in LANGUAGES


def chosen(accept_language: str) -> Language:
    """Return the language that a browser prefers among ours (RFC 9110 § 12.5.4); English by default."""
    best: tuple[float, Language] = (0.0, "en")
    for part in accept_language.split(","):
        tag, _, parameters = part.strip().partition(";")
        try:
            weight = float(parameters.partition("=")[2]) if "q=" in parameters.replace(" ", "") else 1.0
        except ValueError:
            continue
        language = next((one for one in LANGUAGES if tag.lower().partition("-")[0] == one), None)
        if language is not None and weight > best[0]:
            best = (weight, language)
    return best[1]

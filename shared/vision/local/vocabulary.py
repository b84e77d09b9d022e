"""Map the classifier's 1000 classes to German words, and to the words of a library's choices."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

from shared.columns.words import fold

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be recognised: its German name and the classes that show it."""

    term: str
    kind: str
    """The broader thing it is one of; empty: none worth naming."""
    english: str
    classes: list[int]
    words: list[str]
    """What a library may call it. A word stands here only if every picture of the term shows it too."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A broader thing, seen as soon as any of its terms is."""

    kind: str
    words: list[str]


class _File(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    kinds: list[Kind]
    terms: list[Term]


class Vocabulary:
    """All terms. Probabilities of classes add up: a cat of whatever breed is a cat."""

    def __init__(self, text: bytes) -> None:
        """`text` is the JSON of `vocabulary.json`."""
        data = msgspec.json.decode(text, type=_File)
        self.digest = hashlib.sha256(text).hexdigest()[:8]
        self.terms = {term.term: sorted(term.classes) for term in data.terms}
        self.kinds: dict[str, list[int]] = {kind.kind: [] for kind in data.kinds}
        words: dict[str, set[int]] = {}
        of_kind = {kind.kind: kind.words for kind in data.kinds}
        for term in data.terms:
            self.kinds[term.kind].extend(term.classes)
            for word in (term.term, *term.words, *of_kind[term.kind]):
                words.setdefault(fold(word), set()).update(term.classes)
        self._words = {word: sorted(classes) for word, classes in words.items()}

    def shares(self, probabilities: NDArray[Any]) -> list[tuple[str, float]]:
        """Return every term with its probability, likeliest first."""
        return _ranked(self.terms, probabilities)

    def kind_shares(self, probabilities: NDArray[Any]) -> list[tuple[str, float]]:
        """Return every kind with its probability, likeliest first."""
        return _ranked(self.kinds, probabilities)

    def choice_share(self, choice: str, probabilities: NDArray[Any]) -> float:
        """Return the probability that a picture shows what a choice names; 0 if no class means it."""
        return float(probabilities[self._words.get(fold(choice), [])].sum())


def _ranked(groups: dict[str, list[int]], probabilities: NDArray[Any]) -> list[tuple[str, float]]:
    shares = ((name, float(probabilities[classes].sum())) for name, classes in groups.items())
    return sorted(shares, key=lambda pair: pair[1], reverse=True)


@cache
def load() -> Vocabulary:
    """Return the vocabulary of this package."""
    return Vocabulary(files("shared.vision.local").joinpath("vocabulary.json").read_bytes())

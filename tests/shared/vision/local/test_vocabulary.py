from __future__ import annotations

import numpy as np
import pytest

from shared.columns.topics import SYNONYMS
from shared.columns.words import fold
from shared.vision.local import vocabulary


def test_every_class_is_one_of_the_thousand_and_stands_for_one_term() -> None:
    classes = [number for numbers in vocabulary.load().terms.values() for number in numbers]
    assert len(classes) == len(set(classes))
    assert set(classes) <= set(range(1000))


def test_probabilities_of_a_terms_classes_add_up() -> None:
    probabilities = np.zeros(1000, np.float32)
    probabilities[[281, 282, 285]] = 0.3  # three breeds of cat
    name, share = vocabulary.load().shares(probabilities)[0]
    assert name == "Katze"
    assert share == pytest.approx(0.9)
    assert vocabulary.load().choice_share("TIERE", probabilities) == pytest.approx(0.9)
    assert vocabulary.load().choice_share("Hund", probabilities) == 0


@pytest.mark.parametrize(
    "word",
    [
        "Rohbau",
        "Aufrichte",
        "Innenausbau",
        "Fundament",
        "Fichte",
        "Lärche",
        "Holz",
        "Einfamilienhaus",
        "Schulhaus",
        "Haus",
        "Baustelle",
        "Person",
        "Nein",
        "Prüfen",
        "Montage",
    ],
)
def test_what_imagenet_cannot_know_no_class_stands_for(word: str) -> None:
    assert vocabulary.load().choice_share(word, np.ones(1000, np.float32)) == 0


def test_no_word_is_the_name_of_a_column() -> None:
    # a choice "Holz" in a column "Holz" must not be matched by chance
    names = {fold(name) for names in SYNONYMS.values() for name in names}
    ones = np.ones(1000, np.float32)
    assert [name for name in names if vocabulary.load().choice_share(name, ones)] == []

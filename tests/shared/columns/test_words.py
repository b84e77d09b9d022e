from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.columns.words import UNSURE, first_choice, fold, match_choice


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Gebäude", "GEBAEUDE"),
        ("Gebäude", "Gebaude"),
        ("Massstab", "Maßstab"),
        ("Alt-Text", "alt text"),
        ("Fotograf/in", "Fotograf in"),
        ("Café", "cafe"),
    ],
)
def test_words_that_people_type_differently_are_the_same(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_an_exact_choice_wins_over_one_that_only_folds_alike() -> None:
    assert match_choice("Fohre", ["Föhre", "Fohre"]) == "Fohre"


def test_two_choices_that_fold_alike_are_no_match() -> None:
    assert match_choice("FÖHRE", ["Föhre", "Fohre"]) is None


@pytest.mark.parametrize(
    ("text", "close", "found"),
    [
        ("Brettschichtholz GL24", False, None),
        ("Bretschichtholz GL24h", True, "Brettschichtholz GL24h"),
        ("Brettschichtholz GL30h", True, None),
        ("Stahl", True, None),
        ("", True, None),
        ("…", True, None),
    ],
)
def test_a_close_match_forgives_letters_and_no_digits(text: str, close: bool, found: str | None) -> None:  # noqa: FBT001  a column of the table
    choices = ["Brettschichtholz GL24h", "Brettsperrholz", "Kantholz C24"]
    assert match_choice(text, choices, close=close) == found


def test_a_close_match_with_an_equal_rival_is_none() -> None:
    assert match_choice("Trakt X Nord", ["Trakt A Nord", "Trakt B Nord"], close=True) is None


@given(st.text(), st.lists(st.text(max_size=20), max_size=6), st.booleans())
def test_a_match_is_always_one_of_the_choices(text: str, choices: list[str], close: bool) -> None:  # noqa: FBT001  drawn
    found = match_choice(text, choices, close=close)
    assert found is None or found in choices


def test_the_first_wanted_word_among_the_choices_is_taken() -> None:
    assert first_choice(UNSURE, ("Ja", "Nein", "unbekannt", "PRUEFEN")) == "PRUEFEN"
    assert first_choice(UNSURE, ("Ja", "Nein")) is None

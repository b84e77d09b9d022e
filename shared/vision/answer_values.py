"""Convert a value as a model writes it into a value that a column takes.

Models write "3,5" for a number, "Ja" for a boolean, 60 for 60 %, or one text where a list is asked for. What
a reader of the answer would understand is converted; what is ambiguous is refused with a sentence.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Final

from shared.columns.checks import check_value
from shared.columns.words import fold, match_choice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from events.types import FieldText
    from shared.columns.schema import ColumnKind
    from shared.vision.answer_schema import Asked

_YES: Final = frozenset(map(fold, ("Ja", "yes", "true", "wahr", "oui", "sì", "1")))
_NO: Final = frozenset(map(fold, ("Nein", "no", "false", "falsch", "non", "0")))
_NOTHING: Final = frozenset(
    map(fold, ("", "null", "none", "n/a", "NaN", "keine Angabe", "nicht erkennbar", "unbekannt"))
)
"""Folded texts that say "no value", in columns that are neither text nor choice."""
# A sign, digits with Swiss thousands marks, a decimal point or comma, and a unit that is no factor.
_NUMBER: Final = re.compile(
    r"(?:ca\.?|etwa|rund|~)?\s*([+-]?\d{1,3}(?:['\u2019]\d{3})+|[+-]?\d+)(?:[.,](\d+))?"
    r"\s*(%|(?!k\b|mio|mrd|tsd|tausend|milli)[^\W\d_]{1,12}\.?)?",
    re.IGNORECASE,
)
_GERMAN_DAY: Final = re.compile(r"(\d{1,2})\.\s?(\d{1,2})\.\s?(\d{4})")
_ISO_MOMENT: Final = re.compile(r"(\d{4}-\d{2}-\d{2})[T ].*")
_LIST_MARKS: Final = re.compile(r"\s*[;,\n]\s*")

_WRONG_KIND: Final = "Diese Art von Wert passt nicht in die Spalte."
_LARGEST: Final = 2**53
"""Whole numbers above it are no doubles any more, and SharePoint stores doubles."""
_SENTENCE_AT_MOST: Final = 300
"""Characters: a sentence quotes the value, which may have any length, and ends in events and reports."""


def convert(asked: Asked, value: object) -> tuple[FieldText, str | None]:
    """Return the value as the column takes it, and in German what is wrong with it; None is no value."""
    column = asked.column
    if value is None or value in ("", []):
        return None, None
    if _is_huge(value):
        return None, _WRONG_KIND
    if meant := _MEANT.get(column.kind):
        value = meant(asked, value)
    if value is None or value == []:
        return None, None
    if not isinstance(value, str | bool | int | float | list) or _is_huge(value):
        return None, _WRONG_KIND
    wrong = check_value(column, value)
    return value, None if wrong is None else plain(wrong)[:_SENTENCE_AT_MOST]


def plain(text: str) -> str:
    """Return the text without lone surrogates, which JSON can express and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def confidence_of(value: object) -> float | None:
    """Return a confidence from 0 to 1, written as 0.9, "0,9", 90 or "90 %"; None if it is none."""
    number = value
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value.strip())
        if found is None or found[3] not in (None, "%"):
            return None
        number = _float(found)
        if found[3]:
            number /= 100
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    if 1 < number <= 100:
        number /= 100
    # `not` refuses NaN as well
    return round(float(number), 2) if 0 <= number <= 1 else None


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and abs(value) > _LARGEST


def _choice(asked: Asked, value: object) -> object:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool):
        words = _YES if value else _NO
        return next((choice for choice in asked.column.choices if fold(choice) in words), value)
    if isinstance(value, int | float):
        return match_choice(f"{value:g}", asked.column.choices) or value
    if isinstance(value, str):
        return _matched(asked, value)
    return value


def _choices(asked: Asked, value: object) -> object:
    if isinstance(value, str):
        whole = match_choice(value, asked.column.choices, close=asked.plain)
        value = [whole] if whole else [part for part in _LIST_MARKS.split(value) if part]
    if not isinstance(value, list):
        return value
    texts = [_matched(asked, str(item)) for item in value if item not in (None, "")]
    return list(dict.fromkeys(texts))


def _matched(asked: Asked, text: str) -> str:
    return match_choice(text, asked.column.choices, close=asked.plain) or text


def _number(asked: Asked, value: object) -> object:
    column = asked.column
    if isinstance(value, str):
        if fold(value) in _NOTHING:
            return None
        found = _NUMBER.fullmatch(value.strip())
        if found is None:
            return value
        number = _float(found)
        if column.percent and found[3] == "%":
            return number / 100
        value = int(number) if found[2] is None else number
    if not column.percent or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    # 60 % is stored as 0.6; a share above 1 is meant as percent, unless the column has room for it
    beyond = value > max(1.0, column.maximum or 1.0)
    return value / 100 if beyond else value


def _float(found: re.Match[str]) -> float:
    return float(f"{re.sub('[^0-9+-]', '', found[1])}.{found[2] or 0}")


def _boolean(_asked: Asked, value: object) -> object:
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if not isinstance(value, str):
        return value
    word = fold(value)
    if word in _YES | _NO:
        return word in _YES
    return None if word in _NOTHING else value


def _day(_asked: Asked, value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.strip()
    if german := _GERMAN_DAY.fullmatch(text):
        try:
            return date(int(german[3]), int(german[2]), int(german[1])).isoformat()
        except ValueError:
            return text
    moment = _ISO_MOMENT.fullmatch(text)
    return moment[1] if moment else text


def _text(asked: Asked, value: object) -> object:
    column = asked.column
    if isinstance(value, list):
        if not all(isinstance(item, str) for item in value):
            return {}
        value = ", ".join(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:g}"
    if not isinstance(value, str):
        # a boolean is no text
        return {}
    return " ".join(value.split()) if column.kind == "text" else value.strip()


_MEANT: Final[Mapping[ColumnKind, Callable[[Asked, object], object]]] = {
    "choice": _choice,
    "multi_choice": _choices,
    "number": _number,
    "boolean": _boolean,
    "date": _day,
    "text": _text,
    "note": _text,
}
"""How the values of each kind of column are meant."""

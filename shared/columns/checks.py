"""Checks whether a value fits a column, before it is sent and again when it is read back."""

from __future__ import annotations

import math
import re
from datetime import date, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from events.types import FieldText
    from shared.columns.schema import Column

# SharePoint answers these with a generic error: they cannot stand in the XML that it stores
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")

# 20240512 and 2024-W19-7 are ISO 8601 too, and Graph takes neither
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


def check_value(column: Column, value: FieldText) -> str | None:
    """Describe what is wrong with `value` for `column`, as a German sentence for the report; None if it fits.

    The values of each kind: text for ``text``, ``note`` and ``choice``, a list of texts for
    ``multi_choice``, a number, a boolean, ``YYYY-MM-DD`` for ``date`` (the day in the site's zone), and
    RFC 3339 with an offset for ``date_time``. None and empty are right where the column is not required.
    """
    if value is None or value in ("", []):
        return "Pflichtfeld ohne Wert." if column.required else None
    match column.kind:
        case "text" | "note":
            return _text(column, value)
        case "choice":
            if not isinstance(value, str):
                return "Erwartet wird genau eine Auswahl."
            return None if value in column.choices else f"«{value}» ist keine Auswahl dieser Spalte."
        case "multi_choice":
            return _choices(column, value)
        case "number":
            return _number(column, value)
        case "boolean":
            return None if isinstance(value, bool) else "Erwartet wird Ja oder Nein."
        case "date" | "date_time":
            return _moment(column, value)
        case _:
            return "In diese Spalte kann nicht geschrieben werden."


def _text(column: Column, value: FieldText) -> str | None:
    if not isinstance(value, str):
        return "Erwartet wird Text."
    if column.kind == "text" and any(char in value for char in "\t\n\r"):
        return "Der Text darf nur eine Zeile haben."
    if _CONTROL.search(value):
        return "Der Text enthält Steuerzeichen."
    if column.max_length is not None and len(value) > column.max_length:
        return f"Der Text hat {len(value)} Zeichen, erlaubt sind {column.max_length}."
    return None


def _choices(column: Column, value: FieldText) -> str | None:
    if not isinstance(value, list):
        return "Erwartet wird eine Liste von Auswahlen."
    foreign = [item for item in value if item not in column.choices]
    if foreign:
        return f"Keine Auswahl dieser Spalte: {', '.join(f'«{item}»' for item in foreign)}."
    return "Eine Auswahl kommt mehrfach vor." if len(set(value)) < len(value) else None


def _number(column: Column, value: FieldText) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "Erwartet wird eine Zahl."
    if column.minimum is not None and value < column.minimum:
        return f"{value:g} liegt unter dem Minimum {column.minimum:g}."
    if column.maximum is not None and value > column.maximum:
        return f"{value:g} liegt über dem Maximum {column.maximum:g}."
    return None


def _moment(column: Column, value: FieldText) -> str | None:
    if not isinstance(value, str):
        return "Erwartet wird ein Datum."
    try:
        if column.kind == "date":
            date.fromisoformat(value)
            return None if _DAY.fullmatch(value) else _not_a_date(value)
        aware = datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return _not_a_date(value)
    return None if aware else f"Bei «{value}» fehlt die Zeitzone."


def _not_a_date(value: str) -> str:
    return f"«{value}» ist kein Datum."

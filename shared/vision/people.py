"""Add the opt-in face hint to an answer about whether people can be recognised.

It is a hint and no more. "No face" is never an answer, because the detector misses people from behind, far
away or with a helmet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from events.types import FieldText, FieldValue, NeedsPerson
from shared.columns import needs as codes
from shared.columns.topics import topic_of
from shared.columns.words import first_choice, fold, unsure_word
from shared.settings import SettingsError, cache_folder

if TYPE_CHECKING:
    from shared.columns.schema import Column, LibrarySchema
    from shared.settings import Settings
    from shared.vision.contract import Answer
    from shared.vision.local.faces import FaceFinder

HINT: Final = "Hinweis: möglicherweise ein Gesicht im Bild; kein Ersatz für eine Prüfung."
CONTRADICTED: Final = HINT + " Die Bildanalyse sagt «{said}»: bitte ansehen."

_POSSIBLE: Final = ("Möglich", "Möglicherweise", "Vielleicht", "Eventuell", "Prüfen", "Zu prüfen", "Unklar")
"""Choices that leave the decision to a person; best first."""
_YES: Final = ("Ja", "Erkennbar", "Sichtbar", "Vorhanden", "Personen erkennbar", "Personen", "Yes", "Oui")
_NO: Final = frozenset(
    map(
        fold,
        ("Nein", "Keine", "Keine Personen", "Nicht erkennbar", "Nicht sichtbar", "Niemand", "No", "Non"),
    )
)


def face_finder(settings: Settings) -> FaceFinder | None:
    """Return the face detector if VISION_FACES is on. Raises SettingsError if its extra is not installed."""
    if not settings.vision_faces:
        return None
    try:
        # onnxruntime and numpy are an extra that an installation with a remote model goes without
        from shared.vision.local.faces import FaceFinder
    except ModuleNotFoundError as error:
        raise SettingsError(
            "VISION_FACES=1 needs the face detector: pip install 'erni-foto-agency[vision-faces]',"
            " or set VISION_FACES=0"
        ) from error
    return FaceFinder(cache_folder(settings))


def people_columns(schema: LibrarySchema) -> list[Column]:
    """Return the columns that a face is a hint for."""
    return [column for column in schema.writable if topic_of(column) == "people"]


def hinted(answer: Answer, schema: LibrarySchema, confidence: float) -> Answer:
    """Return the answer for a photo in which a face was found with this confidence.

    A "yes" of the analyzer stays as it is. Otherwise the column becomes "possible" or "yes", as its choices
    allow, and a person is asked to look, also where the analyzer answered "no".
    """
    fields = dict(answer.fields)
    needs = list(answer.needs_person)
    for column in people_columns(schema):
        said = fields.get(column.name)
        value = None if said is None else said.value
        contradicted = _says_no(value)
        if not contradicted and not _says_nothing(value):
            continue
        fields.pop(column.name, None)
        hint = _hint(column)
        if hint is not None:
            fields[column.name] = FieldValue(value=hint, source="vision", confidence=confidence)
        reason = CONTRADICTED.format(said=_shown(value)) if contradicted else HINT
        needs = [need for need in needs if need.column != column.display_name]
        needs.append(NeedsPerson(column=column.display_name, reason=reason, code=codes.PEOPLE))
    return msgspec.structs.replace(answer, fields=fields, needs_person=needs)


def _hint(column: Column) -> FieldText:
    """Return the value that means "possibly"; None if the column has none."""
    if column.kind == "boolean":
        return True
    choice = first_choice((*_POSSIBLE, *_YES), column.choices)
    return [choice] if choice is not None and column.kind == "multi_choice" else choice


def _says_no(value: FieldText) -> bool:
    match value:
        case bool():
            return not value
        case str():
            return fold(value) in _NO
        case list():
            return bool(value) and all(fold(one) in _NO for one in value)
        case _:
            return value == 0


def _says_nothing(value: FieldText) -> bool:
    """Return whether it is empty, or one of the choices for "nobody knows yet"."""
    values = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    return value is None or value in ("", []) or unsure_word(values) is not None


def _shown(value: FieldText) -> str:
    match value:
        case bool():
            return "Ja" if value else "Nein"
        case list():
            return ", ".join(value)
        case _:
            return str(value)

"""A timber builder's library, in few lines."""

from __future__ import annotations

from typing import Any

from shared.columns.schema import Column, ColumnKind, LibrarySchema


def column(display_name: str, kind: ColumnKind = "text", *choices: str, **more: Any) -> Column:
    """A column whose internal name is its display name, unless `name` is given."""
    name = more.pop("name", display_name.replace(" ", "_x0020_"))
    return Column(name=name, display_name=display_name, kind=kind, choices=choices, **more)


PROJECT = column("Bauprojekt", required=True)
PHASE = column("Bauphase", "choice", "Rohbau", "Aufrichte", "Innenausbau", "Prüfen")
PART = column("Bauteil", "multi_choice", "Dach", "Treppe", "Fenster", "Prüfen")
WOOD = column("Holzart", "choice", "Fichte", "Lärche", "Prüfen")
TAKEN = column("Aufnahmedatum", "date")
PLACE = column("Ort", max_length=100)
PHOTOGRAPHER = column("Fotograf")
DESCRIPTION = column("Beschreibung", "note")
KEYWORDS = column("Schlagworte", "multi_choice", "Kran", "Zaun", "Uhr", "Natur", "Prüfen")
PEOPLE = column("Personen erkennbar", "choice", "Ja", "Nein", "Prüfen")
QUALITY = column("Qualität", "choice", "gut", "mittel", "schlecht", "Prüfen")
REVIEWED = column("Geprüft", "boolean")
STOREY = column("Geschoss", "number", minimum=-5.0, maximum=60.0)

COLUMNS = (
    PROJECT,
    PHASE,
    PART,
    WOOD,
    TAKEN,
    PLACE,
    PHOTOGRAPHER,
    DESCRIPTION,
    KEYWORDS,
    PEOPLE,
    QUALITY,
    REVIEWED,
    STOREY,
)


def library(*columns: Column) -> LibrarySchema:
    """A library of these columns, or of all above."""
    return LibrarySchema(library="Referenzfotos", columns=columns or COLUMNS)

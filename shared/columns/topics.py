"""Finds what a column is about by its name. Libraries differ, but people use the same words for columns."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from shared.columns.words import fold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.columns.schema import Column

Topic: TypeAlias = Literal[
    "project",
    "place",
    "taken_at",
    "photographer",
    "title",
    "phase",
    "part",
    "wood",
    "building_type",
    "description",
    "keywords",
    "people",
    "quality",
    "reviewed",
]

SYNONYMS: Final[Mapping[Topic, tuple[str, ...]]] = MappingProxyType(
    {
        "project": ("Bauprojekt", "Projekt", "Projektname", "Bauvorhaben", "Projet", "Project"),
        "place": (
            "Ort",
            "Standort",
            "Ortschaft",
            "Gemeinde",
            "Aufnahmeort",
            "Bauort",
            "Lieu",
            "Location",
            "Place",
        ),
        "taken_at": (
            "Aufnahmedatum",
            "Datum",
            "Fotodatum",
            "Bilddatum",
            "Aufnahmezeit",
            "Aufnahmezeitpunkt",
            "Aufgenommen am",
            "Date",
            "Date taken",
            "Taken at",
        ),
        "photographer": (
            "Fotograf",
            "Fotografin",
            "Fotograf/in",
            "Fotografiert von",
            "Aufgenommen von",
            "Bildautor",
            "Urheber",
            "Photographer",
        ),
        "title": ("Titel", "Bildtitel", "Title"),
        "phase": ("Bauphase", "Phase", "Baufortschritt", "Bauetappe", "Bauabschnitt"),
        "part": ("Bauteil", "Bauteile", "Bauelement", "Bauelemente"),
        "wood": ("Holzart", "Holzarten", "Holz", "Holzsorte"),
        "building_type": (
            "Gebäudetyp",
            "Gebäudeart",
            "Gebäudekategorie",
            "Objekttyp",
            "Objektart",
            "Bautyp",
            "Nutzung",
        ),
        "description": (
            "Beschreibung",
            "Bildbeschreibung",
            "Bildlegende",
            "Legende",
            "Bildtext",
            "Alternativtext",
            "Alt-Text",
            "Description",
        ),
        "keywords": (
            "Schlagworte",
            "Schlagwörter",
            "Schlagwort",
            "Stichworte",
            "Stichwörter",
            "Tags",
            "Keywords",
        ),
        "people": (
            "Personen erkennbar",
            "Person erkennbar",
            "Personen sichtbar",
            "Personen",
            "Personen auf dem Bild",
            "Menschen erkennbar",
        ),
        "quality": ("Qualität", "Bildqualität", "Fotoqualität", "Quality"),
        "reviewed": ("Geprüft", "Kontrolliert", "Freigegeben", "Reviewed"),
    }
)
"""Names a column of each topic may have; case, umlauts and punctuation do not count."""

_BY_NAME: Final = {fold(name): topic for topic, names in SYNONYMS.items() for name in names}


def topic_of(column: Column) -> Topic | None:
    """Find what the column is about by its display name, then by its internal name; None if it is unknown."""
    for name in (column.display_name, _decoded(column.name)):
        if topic := _BY_NAME.get(fold(name)):
            return topic
    return None


def _decoded(internal: str) -> str:
    """Decode an internal name with SharePoint's ``_xHHHH_`` escapes turned back into characters."""
    return re.sub(r"_x([0-9a-fA-F]{4})_", lambda match: chr(int(match[1], 16)), internal)

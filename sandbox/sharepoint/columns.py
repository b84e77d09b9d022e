"""The columns that the emulator ships: a timber builder's photo library, and SharePoint's own beside them.

Every choice column that a machine fills offers "Prüfen" for when it does not know. Bauprojekt is required
although SharePoint takes a file without it, as the real one does through Graph: nobody but an upstream or a
person knows the project, so a photo without it is one that needs a person.
"""

from __future__ import annotations

from typing import Final

from sandbox.sharepoint.model import Column, JsonObject, stable_id

CHECK: Final = "Prüfen"
SYSTEM_GROUP: Final = "_Hidden"

# Columns of these facets arrive without any facet in v1.0 (columnDefinition resource, note on properties).
WITHHELD_FACETS: Final = frozenset({"hyperlinkOrPicture", "term", "thumbnail", "contentApprovalStatus"})
# What no client can write through Graph, beside read-only columns.
UNWRITABLE_FACETS: Final = frozenset({"calculated", "geolocation"}) | WITHHELD_FACETS

PROJECT_LIST_ID: Final = stable_id("list", "Bauprojekte")
PHOTO_LIST_ID: Final = stable_id("list", "Referenzfotos")
DOCUMENT_LIST_ID: Final = stable_id("list", "Freigegebene Dokumente")


def _line(max_length: int = 255) -> JsonObject:
    return {
        "allowMultipleLines": False,
        "appendChangesToExistingText": False,
        "linesForEditing": 0,
        "maxLength": max_length,
    }


def _note() -> JsonObject:
    return {
        "allowMultipleLines": True,
        "appendChangesToExistingText": False,
        "linesForEditing": 6,
        "textType": "plain",
    }


def _one_of(*choices: str, display: str = "dropDownMenu") -> JsonObject:
    return {"allowTextEntry": False, "choices": list(choices), "displayAs": display}


def _some_of(*choices: str) -> JsonObject:
    return _one_of(*choices, display="checkBoxes")


_DATE_AND_TIME: Final[JsonObject] = {"displayAs": "standard", "format": "dateTime"}
_PERSON: Final[JsonObject] = {
    "allowMultipleSelection": False,
    "chooseFromType": "peopleOnly",
    "displayAs": "nameWithPresence",
}

SYSTEM_COLUMNS: Final = (
    Column(
        name="ContentType",
        display_name="Inhaltstyp",
        facet="choice",
        settings=_one_of("Dokument", "Ordner"),
        group=SYSTEM_GROUP,
    ),
    Column(name="Title", display_name="Titel", facet="text", settings=_line(), group=SYSTEM_GROUP),
    Column(
        name="FileLeafRef",
        display_name="Name",
        facet="text",
        settings=_line(),
        group=SYSTEM_GROUP,
        required=True,
    ),
    Column(
        name="Created",
        display_name="Erstellt",
        facet="dateTime",
        settings=_DATE_AND_TIME,
        group=SYSTEM_GROUP,
        read_only=True,
    ),
    Column(
        name="Author",
        display_name="Erstellt von",
        facet="personOrGroup",
        settings=_PERSON,
        group=SYSTEM_GROUP,
        read_only=True,
    ),
    Column(
        name="Modified",
        display_name="Geändert",
        facet="dateTime",
        settings=_DATE_AND_TIME,
        group=SYSTEM_GROUP,
        read_only=True,
    ),
    Column(
        name="Editor",
        display_name="Geändert von",
        facet="personOrGroup",
        settings=_PERSON,
        group=SYSTEM_GROUP,
        read_only=True,
    ),
    *(
        Column(
            name=name,
            display_name=display_name,
            facet=facet,
            settings=settings,
            group=SYSTEM_GROUP,
            read_only=True,
            hidden=hidden,
        )
        for name, display_name, facet, settings, hidden in (
            ("_UIVersionString", "Version", "text", _line(), False),
            ("FileSizeDisplay", "Dateigröße", "text", _line(), False),
            ("LinkFilename", "Name", "text", _line(), False),
            ("LinkFilenameNoMenu", "Name", "text", _line(), False),
            ("DocIcon", "Typ", "text", _line(), False),
            ("ItemChildCount", "Untergeordnete Elemente", "text", _line(), False),
            ("FolderChildCount", "Untergeordnete Ordner", "text", _line(), False),
            ("UniqueId", "Eindeutige ID", "text", _line(), True),
            ("FileRef", "URL-Pfad", "text", _line(), True),
        )
    ),
)

SYSTEM_NAMES: Final = frozenset(column.name for column in SYSTEM_COLUMNS) - {"Title", "FileLeafRef"}
"""Names that are SharePoint's own and cannot be written, whatever the column says of itself."""

PHOTO_COLUMNS: Final = (
    Column(
        name="Bauprojekt",
        display_name="Bauprojekt",
        facet="text",
        settings=_line(),
        description="Name des Bauprojekts, wie er in der Auftragsliste steht",
        required=True,
        indexed=True,
    ),
    Column(
        name="Bauphase",
        display_name="Bauphase",
        facet="choice",
        settings=_one_of(
            "Planung",
            "Aushub",
            "Fundament",
            "Rohbau",
            "Aufrichte",
            "Dachdeckung",
            "Fassadenbau",
            "Innenausbau",
            "Fertiggestellt",
            "Rückbau",
            CHECK,
        ),
        description="Stand der Arbeiten auf dem Foto",
    ),
    Column(
        name="Bauteil",
        display_name="Bauteil",
        facet="choice",
        settings=_some_of(
            "Tragwerk",
            "Dach",
            "Fassade",
            "Wand",
            "Decke",
            "Boden",
            "Treppe",
            "Balkon",
            "Geländer",
            "Fenster",
            "Tür",
            "Fundament",
            "Möbel",
            CHECK,
        ),
        description="Sichtbare Bauteile, mehrere möglich",
    ),
    Column(
        name="Holzart",
        display_name="Holzart",
        facet="choice",
        settings=_one_of(
            "Fichte",
            "Tanne",
            "Lärche",
            "Douglasie",
            "Föhre",
            "Eiche",
            "Buche",
            "Esche",
            "Holzwerkstoff",
            "Kein Holz",
            CHECK,
        ),
    ),
    Column(
        name="Geb_x00e4_udetyp",
        display_name="Gebäudetyp",
        facet="choice",
        settings=_one_of(
            "Einfamilienhaus",
            "Mehrfamilienhaus",
            "Schulhaus",
            "Gewerbebau",
            "Landwirtschaftsbau",
            "Öffentlicher Bau",
            "Aufstockung",
            "Anbau",
            "Brücke",
            "Kein Gebäude",
            CHECK,
            display="radioButtons",
        ),
    ),
    Column(
        name="Aufnahmedatum",
        display_name="Aufnahmedatum",
        facet="dateTime",
        settings={"displayAs": "standard", "format": "dateOnly"},
        description="Tag der Aufnahme",
        indexed=True,
    ),
    Column(name="Ort", display_name="Ort", facet="text", settings=_line(100)),
    Column(
        name="Beschreibung",
        display_name="Beschreibung",
        facet="text",
        settings=_note(),
        description="Was auf dem Foto zu sehen ist, in ein bis drei Sätzen",
    ),
    Column(
        name="Schlagworte",
        display_name="Schlagworte",
        facet="choice",
        settings=_some_of(
            "Kran",
            "Gerüst",
            "Baustelle",
            "Dach",
            "Fassade",
            "Fenster",
            "Treppe",
            "Turm",
            "Kuppel",
            "Brücke",
            "Mauerwerk",
            "Beton",
            "Holz",
            "Stein",
            "Kies",
            "Metall",
            "Werkstatt",
            "Werkzeug",
            "Maschine",
            "Fahrzeug",
            "Lastwagen",
            "Innenraum",
            "Küche",
            "Möbel",
            "Haus",
            "Scheune",
            "Zaun",
            "Garten",
            "Natur",
            "Wald",
            "Wasser",
            "Berge",
            "Himmel",
            "Winter",
            "Schnee",
            "Person",
            "Tier",
            "Pflanze",
            "Essen",
            "Nacht",
            CHECK,
        ),
        description="Was zu sehen ist, mehrere möglich",
    ),
    Column(
        name="Personen_x0020_erkennbar",
        display_name="Personen erkennbar",
        facet="choice",
        settings=_one_of("Ja", "Nein", CHECK, display="radioButtons"),
        description="Sind Personen zu erkennen? Dann braucht es ihre Einwilligung",
    ),
    Column(
        name="Qualit_x00e4_t",
        display_name="Qualität",
        facet="choice",
        settings=_one_of("gut", "mittel", "schlecht", CHECK),
    ),
    Column(name="Gepr_x00fc_ft", display_name="Geprüft", facet="boolean", default="0"),
    Column(
        name="Geschoss",
        display_name="Geschoss",
        facet="number",
        settings={"decimalPlaces": "none", "displayAs": "number", "minimum": -5.0, "maximum": 60.0},
    ),
    Column(
        name="Bildlegende",
        display_name="Bildlegende",
        facet="calculated",
        settings={"format": "dateOnly", "formula": '=[Bauprojekt]&", "&[Ort]', "outputType": "text"},
        read_only=True,
    ),
    Column(
        name="Projektakte",
        display_name="Projektakte",
        facet="lookup",
        settings={
            "allowMultipleValues": False,
            "allowUnlimitedLength": False,
            "columnName": "Title",
            "listId": PROJECT_LIST_ID,
        },
    ),
    Column(name="Bauleitung", display_name="Bauleitung", facet="personOrGroup", settings=_PERSON),
    Column(
        name="Projektseite",
        display_name="Projektseite",
        facet="hyperlinkOrPicture",
        settings={"isPicture": False},
    ),
    Column(
        name="Importkennung",
        display_name="Importkennung",
        facet="text",
        settings=_line(),
        hidden=True,
    ),
)

# What real tenants have on top, and what clients stumble over: shipped in strict mode.
STRICT_COLUMNS: Final = (
    # A name that begins with an escaped umlaut is not recognized when written (graph-docs-contrib #7829).
    Column(name="_x00c4_hnliche", display_name="Ähnliche Objekte", facet="text", settings=_line()),
    Column(
        name="Merkmale",
        display_name="Merkmale",
        facet="term",
        settings={"allowMultipleValues": True, "showFullyQualifiedName": False},
    ),
    Column(name="Titelbild", display_name="Titelbild", facet="thumbnail"),
    Column(name="Lage", display_name="Lage", facet="geolocation"),
    Column(name="Bausumme", display_name="Bausumme", facet="currency", settings={"locale": "de-ch"}),
)

PROJECT_COLUMNS: Final = (
    Column(
        name="Title", display_name="Titel", facet="text", settings=_line(), required=True, group=SYSTEM_GROUP
    ),
    *(column for column in SYSTEM_COLUMNS if column.name in ("Created", "Author", "Modified", "Editor")),
    Column(name="Ort", display_name="Ort", facet="text", settings=_line(100)),
)

PROJECTS: Final = (
    ("Wohnüberbauung Seewen", "Seewen"),
    ("Schulhaus Brunnen", "Brunnen"),
    ("Aufstockung Küssnacht", "Küssnacht"),
    ("Werkhalle Goldau", "Goldau"),
)
"""The rows of the list "Bauprojekte" that the lookup column points at: title and place."""

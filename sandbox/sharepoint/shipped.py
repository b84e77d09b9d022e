"""What a new folder begins with: the site, its lists and the rows of the project list."""

from __future__ import annotations

from typing import Final

from sandbox.sharepoint.columns import (
    DOCUMENT_LIST_ID,
    PHOTO_COLUMNS,
    PHOTO_LIST_ID,
    PROJECT_COLUMNS,
    PROJECT_LIST_ID,
    PROJECTS,
    STRICT_COLUMNS,
    SYSTEM_COLUMNS,
)
from sandbox.sharepoint.model import Item, ListRecord, item_id, stable_id

HOST: Final = "localhost"
SITE_PATH: Final = "sites/Bau"
SITE_NAME: Final = "Bau"
SITE_COLLECTION_ID: Final = stable_id("site collection", SITE_PATH)
WEB_ID: Final = stable_id("web", SITE_PATH)
SITE_ID: Final = f"{HOST},{SITE_COLLECTION_ID},{WEB_ID}"


def site_id(path: str) -> str:
    """Return Graph's id of the site at a path."""
    collection = path if path.count("/") < 2 else "/".join(path.split("/")[:2])
    return f"{HOST},{stable_id('site collection', collection)},{stable_id('web', path)}"


SITE_TIME_ZONE: Final = "Europe/Zurich"
"""In which a date-only column counts its days."""
SITE_CREATED: Final = "2024-01-15T08:00:00Z"
LIBRARY: Final = "Referenzfotos"


def lists(*, strict: bool) -> tuple[ListRecord, ...]:
    """The photo library, the site's default library and the list that the lookup column points at."""
    return (
        ListRecord(
            id=PHOTO_LIST_ID,
            name=LIBRARY,
            display_name=LIBRARY,
            template="documentLibrary",
            columns=SYSTEM_COLUMNS + PHOTO_COLUMNS + (STRICT_COLUMNS if strict else ()),
            created=SITE_CREATED,
        ),
        ListRecord(
            id=DOCUMENT_LIST_ID,
            name="Freigegebene Dokumente",
            display_name="Dokumente",
            template="documentLibrary",
            columns=SYSTEM_COLUMNS,
            created=SITE_CREATED,
        ),
        ListRecord(
            id=PROJECT_LIST_ID,
            name="Bauprojekte",
            display_name="Bauprojekte",
            template="genericList",
            columns=PROJECT_COLUMNS,
            created=SITE_CREATED,
        ),
    )


def projects() -> tuple[Item, ...]:
    """The rows of the project list."""
    rows = []
    for number, (title, place) in enumerate(PROJECTS, 1):
        guid = stable_id("row", title)
        rows.append(
            Item(
                id=item_id(guid),
                guid=guid,
                kind="row",
                number=number,
                list_id=PROJECT_LIST_ID,
                name=title,
                fields={"Title": title, "Ort": place},
                created=SITE_CREATED,
                modified=SITE_CREATED,
                created_by="person",
                modified_by="person",
            )
        )
    return tuple(rows)

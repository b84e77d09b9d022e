"""One worker's view of the emulator, and pictures to file."""

from __future__ import annotations

import hashlib
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from events.identities import PhotoId, Sha256
from events.types import Analysis, ExifFacts, FieldText, FieldValue, Hints, LibraryRef, PhotoAnalyzed
from shared.photo_store import BlobStore
from shared.sharepoint.client import GraphClient
from shared.sharepoint.fields import from_graph
from shared.sharepoint.filing import Filing
from shared.sharepoint.items import read_item
from shared.sharepoint.libraries import Libraries, LiveSchema
from shared.sharepoint.uploads import Uploader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from shared.settings import Settings
    from shared.sharepoint.items import Item
    from tests.shared.sharepoint.emulator import Emulator

FIELDS: dict[str, FieldText] = {
    "Title": "Aufstockung",
    "Bauprojekt": "Schulhaus Brunnen",
    "Bauphase": "Aufrichte",
    "Bauteil": ["Dach", "Tragwerk"],
    "Geb_x00e4_udetyp": "Schulhaus",
    "Aufnahmedatum": "2024-05-12",
    "Beschreibung": "Ein Dach.\nUnd ein Kran.",
    "Gepr_x00fc_ft": False,
    "Geschoss": 2,
}
FIELDS_READ = FIELDS | {"Geschoss": 2.0}
"""As it is read back: SharePoint has no whole numbers."""


@dataclass(frozen=True)
class Desk:
    """An open client, a photo store, a filing; the library Referenzfotos resolved."""

    emulator: Emulator
    settings: Settings
    client: GraphClient
    store: BlobStore
    libraries: Libraries
    filing: Filing
    library: LibraryRef
    live: LiveSchema

    @classmethod
    @asynccontextmanager
    async def opened(cls, emulator: Emulator, store: Path, **settings: str) -> AsyncIterator[Desk]:
        """Open a desk; several on one `store` are several workers."""
        loaded = emulator.settings(store, **settings)
        blobs = BlobStore(loaded.photo_store_url)
        async with GraphClient(loaded) as client:
            libraries = Libraries(client, blobs, loaded)
            library = await libraries.resolve(None)
            yield cls(
                emulator=emulator,
                settings=loaded,
                client=client,
                store=blobs,
                libraries=libraries,
                filing=Filing(client, blobs, libraries, loaded, uploader=Uploader(client, backoff=0)),
                library=library,
                live=await libraries.schema(library),
            )
            await libraries.close()

    async def photo(
        self,
        fields: Mapping[str, FieldText],
        data: bytes | None = None,
        *,
        photo_id: str = "p-1",
        hints: Hints | None = None,
    ) -> PhotoAnalyzed:
        """A described photo with its bytes in the store; bytes of its own unless given."""
        data = os.urandom(2_000) if data is None else data
        sha256 = Sha256(hashlib.sha256(data).hexdigest())
        return PhotoAnalyzed(
            photo_id=PhotoId(photo_id),
            source_url="file:///photo.jpg",
            hints=hints or Hints(),
            library=self.library,
            schema_digest=self.live.digest,
            schema_ref=self.live.reference,
            dataref=await self.store.put(f"originals/{sha256}", data),
            sha256=sha256,
            size=len(data),
            media_type="image/jpeg",
            width=1,
            height=1,
            exif=ExifFacts(taken_at="2024-05-12T10:30:00+02:00"),
            fields={name: FieldValue(value=value, source="vision") for name, value in fields.items()},
            analysis=Analysis(model="m", prompt_version="1"),
            preview_ref=await self.store.put(f"previews/{sha256}.jpg", b"small"),
        )

    async def item(self, item_id: str) -> Item:
        """The item as it is now."""
        item = await read_item(self.client, self.library.drive_id, item_id)
        assert item is not None
        return item

    async def stored(self, item_id: str) -> dict[str, FieldText]:
        """Its fields as we read them, those without a value left out."""
        item = await self.item(item_id)
        return {k: v for k, v in from_graph(self.live.schema, item.fields).items() if v is not None}

"""Photos put into a library as the uploader does, and a SharePoint that has a will of its own."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from events.identities import PhotoId, SessionId, Sha256
from events.types import Analysis, FieldValue, NeedsPerson, PhotoAnalyzed, PhotoUploaded
from shared.photo_store import BlobStore
from shared.sharepoint.client import GraphClient
from shared.sharepoint.filing import Filing
from shared.sharepoint.items import read_item
from shared.sharepoint.libraries import Libraries
from tests.shared.reports.sample import picture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from shared.settings import Settings
    from shared.sharepoint.items import Item

FIELDS = {
    "Bauprojekt": FieldValue(value="Schulhaus Seewen", source="hint"),
    "Bauphase": FieldValue(value="Rohbau", source="vision", confidence=0.8),
    "Bauteil": FieldValue(value=["Dach", "Fassade"], source="vision", confidence=0.7),
    "Aufnahmedatum": FieldValue(value="2026-05-12", source="exif"),
    "Ort": FieldValue(value="Seewen", source="hint"),
}
"""What is found for a photo unless a test says otherwise; it suits the emulator's library."""


class Desk:
    """A worker's connections to one library, and a photo store."""

    def __init__(self, settings: Settings, client: GraphClient) -> None:
        self.settings = settings
        self.client = client
        self.store = BlobStore(settings.photo_store_url)
        self.libraries = Libraries(client, self.store, settings)
        self._filing = Filing(client, self.store, self.libraries, settings)

    async def upload(
        self,
        seed: int,
        *,
        fields: dict[str, FieldValue] | None = None,
        needs: tuple[NeedsPerson, ...] = (),
        session_id: SessionId | None = None,
    ) -> PhotoUploaded:
        """A photo in the library, and the event that says so. Each seed is another picture."""
        original = picture(seed, (320, 240))
        sha256 = Sha256(hashlib.sha256(original).hexdigest())
        library = await self.libraries.resolve(None)
        live = await self.libraries.schema(library)
        photo = PhotoAnalyzed(
            photo_id=PhotoId(f"photo-{seed}"),
            session_id=session_id,
            source_url=f"https://photos.example/{seed}.jpg?sig=s3cret",
            file_name=f"Baustelle_{seed}.jpg",
            library=library,
            schema_digest=live.digest,
            schema_ref=live.reference,
            dataref=await self.store.put(f"originals/{sha256}", original),
            sha256=sha256,
            size=len(original),
            media_type="image/jpeg",
            width=320,
            height=240,
            orientation=6,
            fields=FIELDS if fields is None else fields,
            needs_person=list(needs),
            analysis=Analysis(model="gpt-4o", prompt_version="3", prompt_tokens=1500, completion_tokens=100),
            preview_ref=await self.store.put(f"previews/{sha256}.jpg", original),
        )
        filed = await self._filing.file(photo)
        carried = {name: getattr(photo, name) for name in photo.__struct_fields__}
        return PhotoUploaded(**(carried | {"needs_person": [*needs, *filed.needs_person]}), item=filed.item)

    async def item(self, photo: PhotoUploaded) -> Item:
        """The photo's item as it is now."""
        item = await read_item(self.client, photo.library.drive_id, photo.item.item_id)
        assert item is not None
        return item

    async def alter(self, photo: PhotoUploaded, **fields: object) -> PhotoUploaded:
        """Change stored values as if SharePoint had done so while it took our write: under the same eTag."""
        path = f"/drives/{photo.library.drive_id}/items/{photo.item.item_id}/listItem/fields"
        await self.client.send("PATCH", path, doing="altering", json=fields)
        etag = (await self.item(photo)).fields_etag
        return msgspec.structs.replace(photo, item=msgspec.structs.replace(photo.item, etag=etag))


@asynccontextmanager
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    """A desk with an open client."""
    async with GraphClient(settings) as client:
        opened = Desk(settings, client)
        yield opened
        await opened.libraries.close()


@asynccontextmanager
async def wilful(
    settings: Settings,
    *,
    written: Callable[[dict[str, Any]], Awaitable[None] | None] = lambda _body: None,
    told: Callable[[dict[str, Any]], None] = lambda _item: None,
) -> AsyncIterator[Settings]:
    """A SharePoint that changes what is written to an item's fields, or what it tells about an item.

    What `written` gives is waited for before the write goes on: something else may happen meanwhile.
    Everything else is passed on to the Graph of `settings`; the settings given lead here.
    """
    upstream = URL(settings.graph_url)

    async def pass_on(request: web.Request) -> web.Response:
        body = await request.read()
        if request.method == "PATCH" and request.path.endswith("/fields"):
            fields = msgspec.json.decode(body)
            meanwhile = written(fields)
            if meanwhile is not None:
                await meanwhile
            body = msgspec.json.encode(fields)
        headers = {name: value for name, value in request.headers.items() if name != "Content-Length"}
        target = upstream.with_path(request.rel_url.raw_path, encoded=True).with_query(request.rel_url.query)
        async with session.request(
            request.method, target, data=body, headers=headers, allow_redirects=False
        ) as answer:
            said = await answer.read()
            if answer.content_type == "application/json" and b'"listItem"' in said:
                item = msgspec.json.decode(said)
                told(item)
                said = msgspec.json.encode(item)
            kept = ("Content-Type", "Location", "ETag", "request-id")
            return web.Response(
                status=answer.status,
                body=said,
                headers={name: answer.headers[name] for name in kept if name in answer.headers},
            )

    app = web.Application(client_max_size=20_000_000)
    app.router.add_route("*", "/{path:.*}", pass_on)
    async with aiohttp.ClientSession() as session, TestServer(app) as server:
        yield msgspec.structs.replace(settings, graph_url=str(server.make_url(upstream.path)).rstrip("/"))

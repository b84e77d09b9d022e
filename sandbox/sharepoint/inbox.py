"""The library ``Eingang`` of a practice tenant: pictures to publish from SharePoint itself."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from sandbox.sharepoint.addressing import ItemTarget
from sandbox.sharepoint.columns import SYSTEM_COLUMNS
from sandbox.sharepoint.contents import describe
from sandbox.sharepoint.model import ListRecord, stable_id
from sandbox.sharepoint.shipped import SITE_CREATED

if TYPE_CHECKING:
    from sandbox.sharepoint.items import Items
    from sandbox.sharepoint.store import Store

NAME: Final = "Eingang"
_PHOTOS: Final = {
    "IMG_0001.jpg": ("2024:05:12 14:33:22", "#b5651d"),
    "IMG_0002.jpg": ("2024:06:03 09:12:05", "#8b4a2b"),
    "IMG_0003.jpg": ("2024:06:21 16:47:51", "#5a6e58"),
}
"""When each was taken, and the colour of its roof."""
_WIDTH, _HEIGHT = 1200, 900
_TAKEN: Final = 0x9003
_EXIF: Final = 0x8769


def add_inbox(store: Store, items: Items) -> None:
    """Add the library with a few pictures, if it is not there yet."""
    record = ListRecord(
        id=stable_id("list", NAME),
        name=NAME,
        display_name=NAME,
        template="documentLibrary",
        columns=SYSTEM_COLUMNS,
        created=SITE_CREATED,
    )
    if record.id in store.lists:
        return
    store.save_list(record)
    root = store.items[record.root_id]
    for name, (taken, roof) in _PHOTOS.items():
        with store.incoming() as incoming:
            incoming.write_bytes(_house(taken, roof))
            target = ItemTarget(record, None, root, (name,))
            content = describe(incoming, name)
            items.put(target, content, incoming, conflict="fail", headers={}, request_id="")


def _house(taken: str, roof: str) -> bytes:
    """A drawing in place of a photo: the packages of real ones would have to be downloaded."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "#a9c9e8")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 650, _WIDTH, _HEIGHT), fill="#6b8e4e")
    draw.rectangle((350, 400, 850, 750), fill="#e8dcc8")
    draw.polygon(((300, 400), (600, 180), (900, 400)), fill=roof)
    draw.rectangle((560, 570, 660, 750), fill="#4b3621")
    exif = Image.Exif()
    exif.get_ifd(_EXIF)[_TAKEN] = taken
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=88, exif=exif)
    return target.getvalue()

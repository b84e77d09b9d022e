"""Makes the pictures of docs/console.md: each page light, dark and on a phone, in both languages.

    python -m tests.console.pages.pictures [--all FOLDER]

Without `--all` it writes the few that the page shows, to docs/images.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from redis import Redis as PlainRedis

from console.gateway.server import Gateway
from events.connection import connect
from sandbox.redis_server import Valkey
from shared.operations import sign_in
from shared.settings import Settings
from tests.console.pages import scene
from tests.console.webhook_notices import POSTPONED, notice
from tests.shared.reports.browser import chromium
from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.shared.reports.browser import Tab

IMAGES: Final = ROOT / "docs" / "images"
SHOWN: Final = {
    ("pipeline", "light", "wide", "en"): "console-pipeline.png",
    ("dead", "light", "wide", "en"): "console-dead-letters.png",
    ("photo", "dark", "wide", "en"): "console-photo.png",
    ("dead", "dark", "phone", "de"): "console-phone.png",
}
_WORK_SECONDS: Final = 60.0
"""How long the system works before the pictures: charts need a past."""
_SIZES: Final = {"wide": (1366, 900), "phone": (390, 844)}
_LANGUAGES: Final = {"en": "en-GB", "de": "de-CH"}


async def pages(redis: Any) -> dict[str, str]:
    """Every page by its name."""
    letter = (await redis.xrange("erni:dead:sharepoint_uploader", count=1))[0][0].decode()
    archived = (await redis.xrange("erni:archive:schema_extractor", count=1))[0][0].decode()
    operation = (await redis.execute_command("XRANGE", "erni:activity", "-", "+", "COUNT", 1))[0][1][
        9
    ].decode()
    return {
        "pipeline": "/",
        "sessions": "/sessions",
        "session": f"/sessions/{scene.SESSION}",
        "photo": f"/photos/{scene.PHOTO}",
        "dead": "/dead",
        "dead-list": f"/dead/list?session={scene.SESSION}",
        "letter": f"/dead/sharepoint_uploader/{letter}",
        "ask": f"/ask/replay?session={scene.SESSION}",
        "ask-discard": "/ask/discard?agent=photo_fetcher",
        "archive": "/archive",
        "archived": f"/archive/schema_extractor/{archived}",
        "activity": "/activity",
        "operation": f"/operations/{operation}",
        "webhooks": "/webhooks",
        "webhook": f"/webhooks/{scene.HOOK}",
        "keys": "/keys",
        "key": "/keys/camera-app",
        "search": "/search?q=IMG",
        "nothing": "/search?q=" + quote("nowhere.jpg"),
        "error": "/sessions/none",
        "forget": f"/sessions/{scene.OTHER}/forget",
    }


def forms(*, every: bool) -> Iterator[tuple[str, str, str]]:
    """Colours, size and language of the pictures to make."""
    for language in _LANGUAGES:
        for size in _SIZES:
            for colours in ("light", "dark"):
                if every or any(key[1:] == (colours, size, language) for key in SHOWN):
                    yield colours, size, language


async def take(folder: Path, every: Path | None, only: set[str]) -> None:
    """Start everything, and take the pictures."""
    with Valkey(folder / "redis") as server, PlainRedis.from_url(server.url, protocol=2) as client:
        settings = Settings(
            redis_url=server.url, http_port=0, photo_store_url=str(folder / "store"), environment="staging"
        )
        async with connect(server.url) as redis:
            await scene.play(client, redis, settings.photo_store_url)
            await scene.keys(redis)
            client.zadd(POSTPONED, {notice(scene.FAILING_HOOK): (time.time() + 1800) * 1000})
            gateway = Gateway(settings)
            await gateway.start()
            origin = f"http://127.0.0.1:{gateway.port}"
            try:
                async with chromium(folder / "profile") as tab:
                    ticket = await sign_in.make_ticket(redis, "petra", "admin")
                    await tab.open(f"{origin}/login")
                    if every:
                        await _picture(tab, every / "login-light-wide-en.png")
                    await tab.open(f"{origin}/login?x=1#{ticket}")
                    await _until(tab, "document.querySelector('.me')")
                    found, began = await pages(redis), time.monotonic()
                    while time.monotonic() - began < _WORK_SECONDS:
                        scene.work(client, time.monotonic() - began)
                        await asyncio.sleep(1)
                    for colours, size, language in forms(every=every is not None):
                        await _look(tab, colours, language)
                        for name, path in found.items():
                            key = (name, colours, size, language)
                            if (every is None and key not in SHOWN) or (only and name not in only):
                                continue
                            scene.work(client, time.monotonic() - began)
                            await tab.open(origin + path, width=_SIZES[size][0], height=_SIZES[size][1])
                            if every is not None:
                                await _picture(tab, every / f"{'-'.join(key)}.png")
                            if key in SHOWN and not only:
                                await _picture(tab, IMAGES / SHOWN[key])
                    sys.stderr.write("".join(f"{one}\n" for one in tab.complaints))
            finally:
                await gateway.stop()


async def _look(tab: Tab, colours: str, language: str) -> None:
    await tab.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": _LANGUAGES[language]})
    await tab.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": colours}]
    )


async def _until(tab: Tab, script: str) -> None:
    async with asyncio.timeout(20):
        while not await tab.run(f"!!({script})"):  # noqa: ASYNC110 - a page has no event for us
            await asyncio.sleep(0.05)


async def _picture(tab: Tab, path: Path) -> None:
    _write(path, await tab.picture())


def _write(path: Path, picture: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)


def main() -> int:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every page in every form")
    parser.add_argument("--only", nargs="*", default=[], metavar="PAGE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pictures-") as folder:
        asyncio.run(take(Path(folder), options.all, set(options.only)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

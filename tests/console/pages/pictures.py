"""Makes the pictures of the console and of a report in docs/images.

    python -m tests.console.pages.pictures [--all FOLDER]

With `--all` it writes every page, whole, into a folder: light and dark, on a desk and on a phone, in both
languages, so that somebody can look at them.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from PIL import Image
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
    ("pipeline", "light", "wide", "en"): "console-pipeline.webp",
    ("pipeline", "dark", "phone", "de"): "console-pipeline-phone.webp",
    ("sessions", "light", "wide", "de"): "console-sessions.webp",
    ("session", "dark", "wide", "en"): "console-session.webp",
    ("session", "light", "phone", "de"): "console-session-phone.webp",
    ("forget", "light", "phone", "en"): "console-forget.webp",
    ("photo", "dark", "wide", "en"): "console-photo.webp",
    ("photo", "light", "phone", "de"): "console-photo-phone.webp",
    ("dead", "light", "wide", "en"): "console-dead-letters.webp",
    ("dead", "dark", "phone", "de"): "console-dead-letters-phone.webp",
    ("dead-list", "dark", "wide", "de"): "console-dead-letters-list.webp",
    ("letter", "light", "wide", "en"): "console-dead-letter.webp",
    ("ask", "light", "phone", "en"): "console-replay.webp",
    ("ask-discard", "dark", "phone", "de"): "console-discard.webp",
    ("archive", "light", "wide", "de"): "console-archive.webp",
    ("archived", "dark", "phone", "en"): "console-archived.webp",
    ("activity", "light", "wide", "en"): "console-activity.webp",
    ("operation", "dark", "phone", "de"): "console-operation.webp",
    ("webhooks", "light", "wide", "en"): "console-webhooks.webp",
    ("webhook", "dark", "phone", "de"): "console-webhook.webp",
    ("keys", "dark", "wide", "de"): "console-keys.webp",
    ("key", "light", "phone", "en"): "console-key.webp",
    ("search", "light", "wide", "de"): "console-search.webp",
    ("nothing", "dark", "phone", "en"): "console-search-nothing.webp",
    ("error", "light", "phone", "de"): "console-error.webp",
    ("login", "light", "phone", "en"): "console-sign-in.webp",
    ("report", "light", "wide", "de"): "report.png",
}
_LOWEST: Final = {"wide": 380, "phone": 560}
_HIGHEST: Final = {"wide": 1000, "phone": 900}
"""Of the pictures in docs: the beginning of a long page is enough there."""
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
            await scene.report(settings.photo_store_url)
            client.zadd(POSTPONED, {notice(scene.FAILING_HOOK): (time.time() + 1800) * 1000})
            gateway = Gateway(settings)
            await gateway.start()
            origin = f"http://127.0.0.1:{gateway.port}"
            try:
                async with chromium(folder / "profile") as tab:
                    ticket = await sign_in.make_ticket(redis, "petra", "admin")
                    await tab.open(f"{origin}/login")
                    await tab.open(f"{origin}/login?x=1#{ticket}")
                    await _until(tab, "document.querySelector('.me')")
                    found = await pages(redis) | {
                        "login": "/login",
                        "report": f"/sessions/{scene.OTHER}/report",
                    }
                    began = time.monotonic()
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
                            # the cookie belongs to the host by which somebody signed in
                            at = origin.replace("127.0.0.1", "localhost") if name == "login" else origin
                            await tab.open(at + path, width=_SIZES[size][0], height=_SIZES[size][1])
                            if every is not None:
                                await _whole(tab, size, 5000)
                                await _picture(tab, every / f"{'-'.join(key)}.png")
                            if key in SHOWN and every is None:
                                await _whole(tab, size, _HIGHEST[size])
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


async def _whole(tab: Tab, size: str, highest: int) -> None:
    """Make the window as high as the page, so far as that is in the bounds, and wait for its images."""
    width, _ = _SIZES[size]
    end = "Math.ceil((document.querySelector('main') ?? document.body).getBoundingClientRect().bottom) + 24"
    height = min(max(await tab.run(end), _LOWEST[size]), highest)
    await tab.call("Emulation.setScrollbarsHidden", hidden=True)
    await tab.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=size == "phone",
    )
    seen = "[...document.images].filter(one => one.getBoundingClientRect().top < innerHeight)"
    await tab.run(f"Promise.all({seen}.map(one => one.decode()))")


async def _picture(tab: Tab, path: Path) -> None:
    _write(path, await tab.picture())


def _write(path: Path, picture: bytes) -> None:
    """Write a picture as small as its kind allows, so that the repository stays small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    if path.suffix == ".webp":
        image.save(path, quality=80, method=6)
    else:
        image.quantize(256).save(path, optimize=True)


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

"""A headless Chromium, driven through its DevTools protocol, to see a page as people's browsers do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# Chromium looks up its maker's hosts at every start unless told not to.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)


class Tab:
    """One tab: go somewhere, ask it things, and know what it asked the network for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.requests: list[str] = []
        """Addresses of everything loaded; embedded data is shortened to its scheme."""
        self.complaints: list[str] = []
        """Console errors, policy violations and uncaught exceptions."""

    async def read(self) -> None:
        """Sort what the browser says, until it is closed."""
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                answer = self._answers.pop(told["id"])
                if "error" in told:
                    answer.set_exception(RuntimeError(told["error"]["message"]))
                else:
                    answer.set_result(told["result"])
            elif told["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif told["method"] == "Network.requestWillBeSent":
                url = told["params"]["request"]["url"]
                self.requests.append("data:" if url.startswith("data:") else url)
            elif told["method"] == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                self.complaints.append(told["params"]["entry"]["text"])
            elif told["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(told["params"]["exceptionDetails"]))

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        """One DevTools command and its result."""
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        return await self._answers[number]

    async def open(self, page: Path | str, *, width: int = 1366, height: int = 900) -> None:
        """Show a file, or an address, at a window size (CSS pixels) and wait until it has loaded."""
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self._loaded.clear()
        await self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        await self._loaded.wait()

    async def run(self, script: str) -> Any:
        """A script's value; a promise is waited for."""
        told = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            raise RuntimeError(told["exceptionDetails"]["exception"]["description"])
        return told["result"].get("value")

    async def picture(self) -> bytes:
        """What is in the window, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot"))["data"])

    async def paper(self) -> bytes:
        """What the printer would get, as PDF."""
        told = await self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(told["data"])


@contextlib.asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Tab]:
    """A browser with its profile in `folder`, and its first tab."""
    process = await asyncio.create_subprocess_exec(
        "chromium",
        *_FLAGS,
        f"--user-data-dir={folder}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        port = 0
        async for line in process.stderr:
            if b"DevTools listening on" in line:
                port = int(line.decode().rpartition("/devtools")[0].rpartition(":")[2])
                break
        drain = asyncio.create_task(process.stderr.read())
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                address = next(
                    tab["webSocketDebuggerUrl"] for tab in await answer.json() if tab["type"] == "page"
                )
            async with session.ws_connect(address, max_msg_size=0) as socket:
                tab = Tab(socket)
                reader = asyncio.create_task(tab.read())
                try:
                    yield tab
                finally:
                    reader.cancel()
                    await asyncio.gather(reader, return_exceptions=True)
    finally:
        process.terminate()
        await process.wait()
        await asyncio.gather(drain, return_exceptions=True)

"""Lets real servers give each answer of the list in shared/retry/failures.py to the code that reads it."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import resource
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import aiohttp

from events.connection import connect
from shared.fetching.sources import Sources
from shared.photo_store import BlobStore
from shared.settings import Settings
from shared.sharepoint.client import GraphClient
from shared.sharepoint.libraries import aimed_at_library
from shared.vision.contract import PhotoContext
from shared.vision.openai import OpenAIAnalyzer
from tests.shared.columns.columns import column, library
from tests.shared.fetching.site import Site, answer
from tests.shared.sharepoint.certificates import self_signed
from tests.shared.sharepoint.desk import Desk
from tests.shared.sharepoint.stub import Reply, Stub
from tests.shared.vision.recorded import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from events.types import NeedsPerson
    from sandbox.redis_server import Valkey
    from shared.retry.failures import Failure
    from tests.shared.sharepoint.emulator import Emulator

Handling: TypeAlias = "Callable[[], Awaitable[list[NeedsPerson]]]"
"""Handles one photo as its agent does; returns what is left to a person."""

NOWHERE: Final = "127.0.0.1:9"
"""Nobody listens on the port of `discard`."""

UPLOAD: Final = {"method": "PUT", "match": "/content"}
FIELDS: Final = {"method": "PATCH", "match": "/fields"}
GRAPH: Final[dict[str, dict[str, Any]]] = {
    "401": {"kind": "401"},
    "429": {"kind": "429"},
    "503 with Retry-After": {"kind": "503"},
    "no connection": {"kind": "reset"},
    "unreadable": {"kind": "garbage"},
    "500": {"kind": "500", **UPLOAD},
    "502": {"kind": "502", **UPLOAD},
    "503": {"kind": "503", "retry_after": 0, **UPLOAD},
    "504": {"kind": "504", **UPLOAD},
    "507": {"kind": "507", **UPLOAD},
    "403": {"kind": "403", **UPLOAD},
    "404": {"kind": "404", **UPLOAD},
    "413": {"kind": "413", **UPLOAD},
    "423": {"kind": "423", **FIELDS},
    "400": {"kind": "400", **FIELDS},
    "409": {"kind": "409", "times": 1, "code": "nameAlreadyExists", **UPLOAD},
    "412": {"kind": "412", "times": 1, **FIELDS},
    "check-out or check-in refused": {"kind": "403", "method": "POST", "match": "checkout"},
    "a value the library rejects": {"kind": "slow", "delay": 0.0},
}
"""What is ordered of the Graph emulator."""
_numbers = itertools.count()
COLUMNS: Final = [{"name": "Ort", "text": {}}, {"name": "Kuerzel", "text": {}, "validation": "-"}]


@asynccontextmanager
async def sharepoint(row: Failure, emulator: Emulator, folder: Path) -> AsyncIterator[Handling]:
    """The uploader's work in a library of its own."""
    if row.answer == "sign-in refused":
        async with _refused_sign_in(folder) as handling:
            yield handling
        return
    name = f"Antwort-{next(_numbers)}"
    await emulator.admin("POST", "/lists", {"displayName": name, "columns": COLUMNS})
    await emulator.admin("PUT", f"/lists/{name}/settings", {"minor_versions": "check" in row.answer})
    async with Desk.opened(emulator, folder, SHAREPOINT_LIBRARY=name) as desk:
        await emulator.fault(**GRAPH[row.answer])
        values = {"Ort": "Seewen"} | ({"Kuerzel": "x"} if row.answer.startswith("a value") else {})

        async def file() -> list[NeedsPerson]:
            photo = await desk.photo(values)
            with aimed_at_library(photo.library.site, photo.library.library):
                return (await desk.filing.file(photo)).needs_person

        try:
            yield file
        finally:
            await emulator.admin("DELETE", "/fault")


@asynccontextmanager
async def _refused_sign_in(_: Path) -> AsyncIterator[Handling]:
    graph = Stub()
    await graph.start()
    graph.on("POST", "/tenant/oauth2/v2.0/token", Reply(401, {"error": "invalid_client"}))
    try:
        async with _reading(f"{graph.url}/v1.0", graph.url) as handling:
            yield handling
    finally:
        await graph.stop()


@asynccontextmanager
async def _reading(graph_url: str, authority: str) -> AsyncIterator[Handling]:
    settings = Settings(
        graph_url=graph_url,
        azure_authority=authority,
        azure_tenant_id="tenant",
        azure_client_id="app",
        azure_client_secret="secret",
    )
    async with GraphClient(settings) as client:

        async def read() -> list[NeedsPerson]:
            with aimed_at_library("/sites/Bau", "Fotos"):
                await client.send("GET", "/sites/x", doing="reading the site")
            return []

        yield read


ABOUT: Final = {
    "400 or 422 about a setting": {"message": "Not permitted", "param": "temperature"},
    "400 or 422 about the schema": {"message": "Invalid schema", "param": "response_format"},
    "400 or 422 about the picture": {"message": "The image cannot be decoded"},
    "quota used up": {"code": "insufficient_quota"},
    "content filter": {"code": "content_filter"},
}


@asynccontextmanager
async def vision(row: Failure, redis_url: str) -> AsyncIterator[Handling]:
    """The analyzer's work at a service that answers like that."""
    async with serving() as service, connect(redis_url) as redis:
        settings = Settings(
            vision_backend="openai",
            vision_model="m",
            vision_url=f"http://{NOWHERE}" if row.answer == "no connection" else service.url,
            vision_price_input=1.0,
            vision_price_output=1.0,
            vision_budget_day=0.000001 if row.answer == "budget used up" else 0.0,
        )
        analyzer = OpenAIAnalyzer(settings, redis)
        await analyzer.open()
        statuses = [400, 422] * 3

        async def describe() -> list[NeedsPerson]:
            service.forget()
            if row.answer in ("unreadable", "cut off"):
                for _ in range(2):
                    service.completion("{", finish_reason="length" if row.answer == "cut off" else "stop")
            else:
                _refuse(row, service.answer, statuses)
            found = await analyzer.describe(b"\xff\xd8", library(column("Titel")), PhotoContext())
            assert not found.usable
            return found.needs_person

        try:
            yield describe
        finally:
            await analyzer.close()


def _refuse(row: Failure, say: Callable[[int, str, dict[str, str]], None], statuses: list[int]) -> None:
    body = json.dumps({"error": ABOUT.get(row.answer, {})})
    headers = {"Retry-After": "1"} if "Retry-After" in row.answer else {}
    match row.answer:
        case "redirect":
            say(307, "", {"Location": "/elsewhere"})
        case "quota used up":
            say(429, body, headers)
        case "content filter":
            say(400, body, headers)
        case about if about in ABOUT:
            say(400 if "setting" not in about else statuses[0], body, headers)
        case status if status[:3].isdigit():
            say(int(status[:3]), body, headers)


@asynccontextmanager
async def source(row: Failure, folder: Path) -> AsyncIterator[Handling]:
    """The fetcher's work at a web server that answers like that."""
    said = answer(status=f"{row.answer} Said") if row.answer.isdigit() else b""
    async with Site({"/photo.jpg": said}) as site:
        settings = Settings(source_hosts=("127.0.0.1",))
        sources = Sources(settings, BlobStore(str(folder)), sharepoint=_no_library)
        await sources.open()
        if not said:
            await site.stop()
        address = site.url()

        async def fetch() -> list[NeedsPerson]:
            async with sources.fetch(address):
                return []

        try:
            yield fetch
        finally:
            await sources.close()


async def _no_library(_: str) -> Any:
    yield b""


@asynccontextmanager
async def redis(row: Failure, server: Valkey) -> AsyncIterator[Handling]:
    """A handler that needs a Redis which answers like that."""
    async with AsyncExitStack() as stack:
        url = server.url
        if row.answer == "loading":
            url = await stack.enter_async_context(_loading())
        elif row.answer == "no connection":
            server.stop()
        client = await stack.enter_async_context(connect(url))
        if row.answer == "out of memory":
            await client.config_set("maxmemory", "1")
        elif row.answer == "read-only":
            await client.replicaof("127.0.0.1", "9")
        elif row.answer == "refused command":
            await client.set("key", "text", ex=60)

        async def write() -> list[NeedsPerson]:
            if row.answer == "refused command":
                await client.hset("key", "a", "b")
            else:
                await client.set("key", "text", ex=60)
            return []

        yield write
        if row.answer == "read-only":
            await client.replicaof("NO", "ONE")


@asynccontextmanager
async def _loading() -> AsyncIterator[str]:
    """A server that answers each command as Redis does while it reads its data back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while command := await reader.read(65_536):
                # a pipeline has several commands, each an array of bulk strings
                for _ in range(max(1, command.count(b"\r\n*") + 1)):
                    writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


@asynccontextmanager
async def machine(row: Failure, folder: Path) -> AsyncIterator[Handling]:
    """A handler that meets this trouble of the machine."""
    match row.answer:
        case "disk full":
            yield _fill_the_disk
        case "too many open files":
            yield _open_too_many
        case "TLS certificate":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self_signed(folder / "nobody-trusts-it.pem"))
            server = await asyncio.start_server(_nothing, "127.0.0.1", 0, ssl=context)
            address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with server, _reading(f"{address}/v1.0", address) as handling:
                yield handling
        case _:
            yield _wrong


async def _nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _fill_the_disk() -> list[NeedsPerson]:
    # a device that is always full
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        os.write(full, b"photo")
    finally:
        os.close(full)
    return []


async def _open_too_many() -> list[NeedsPerson]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[0] + 1, hard))
    try:
        async with aiohttp.ClientSession() as session:
            await session.get(f"http://{NOWHERE}/")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(files[0])
    raise AssertionError(errno.EMFILE)


async def _wrong() -> list[NeedsPerson]:
    raise ZeroDivisionError("division by zero")


Answering: TypeAlias = "AbstractAsyncContextManager[Handling]"

"""The examples of docs/publishing.md run as their readers would run them."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from console.gateway import problems
from console.gateway.events_api import MAX_BATCH, MAX_BODY_BYTES
from console.gateway.photos_api import FIELDS
from events import codec
from events.connection import call
from tests.console.gateway.conftest import taken_in
from tests.console.gateway.test_stream import submitted
from tests.events.samples import sample
from tests.project import pages
from tests.shared.delivery.harness import entries
from tests.tools import (
    NODE_CLOUDEVENTS,
    NODE_IOREDIS,
    NODE_MODULES,
    PYTHON_CLOUDEVENTS,
    ROOT,
    require,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from events.types import PhotoSubmitted
    from shared.settings import Settings
    from tests.console.gateway.conftest import Client

PAGE: Final = pages.page("publishing.md")
CURL, BY_HAND, COMMAND, UPLOAD, FOLLOW, STREAM, CLOSE = re.findall(
    r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
)
JPEG: Final = b"\xff\xd8\xff\xe0 a picture"


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


async def run(client: Client, folder: Path, *words: str, **more: str) -> str:
    process = await start(client, folder, *words, **more)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, (out + err).decode()
    return out.decode()


async def start(client: Client, folder: Path, *words: str, **more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *words,
        cwd=folder,
        env={
            **os.environ,
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "ERNI_URL": client.url,
            "ERNI_KEY": client.key,
            "NO_PROXY": "*",
            "PYTHONWARNINGS": "error",
            **more,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def published(redis: Redis) -> list[tuple[str, str]]:
    """Event ids and sources of the photos."""
    found = [
        codec.decode("photo.submitted", "1-0", one) for one in await entries(redis, "erni:photo.submitted")
    ]
    return [(one.event_id, _photo(one).source_url) for one in found]


def _photo(envelope: codec.Envelope) -> PhotoSubmitted:
    return envelope.event  # type: ignore[return-value]  # of that stream


@pytest.mark.needs("curl")
async def test_curl_publishes_uploads_follows_and_closes(
    client: Client, redis: Redis, tmp_path: Path
) -> None:
    require("curl")
    for replayed in ("false", "true"):
        said = await run(client, tmp_path, "sh", "-euc", CURL)
        assert f'"replayed":{replayed}' in said
    await asyncio.to_thread((tmp_path / "IMG_4715.jpg").write_bytes, JPEG)
    said = await run(client, tmp_path, "sh", "-euc", UPLOAD)
    ids = [event_id for event_id, _ in await published(redis)]
    assert ids == ["upload-4711", "upload-4715"]
    photo = re.findall(r'"photo_id":"([^"]+)"', said)[0]
    said = await run(client, tmp_path, "sh", "-euc", FOLLOW.splitlines()[0], PHOTO=photo)
    assert '"status":"on its way to schema_extractor"' in said
    assert '"file_name":"IMG_4715.jpg"' in said
    await taken_in(redis, "seewen-12-may")
    said = await run(client, tmp_path, "sh", "-euc", FOLLOW, PHOTO=photo)
    assert '"received":2' in said
    said = await run(client, tmp_path, "sh", "-euc", CLOSE)
    assert said == '{"session_id":"seewen-12-may","expected":5,"received":2}\n'


async def test_the_python_example_publishes(client: Client, redis: Redis, tmp_path: Path) -> None:
    plain, _ = examples("python")
    said = await run(client, tmp_path, sys.executable, "-c", plain)
    assert said.startswith("/v1/photos/p-")
    assert await published(redis) == [("upload-4712", "https://photos.example.org/IMG_4712.jpg")]


@pytest.mark.needs(PYTHON_CLOUDEVENTS)
@pytest.mark.parametrize("function", ["to_binary_event", "to_structured_event"])
async def test_the_official_python_sdk_publishes(
    client: Client, redis: Redis, tmp_path: Path, function: str
) -> None:
    _, sdk = examples("python")
    words = (str(require(PYTHON_CLOUDEVENTS)), "-c", sdk.replace("to_binary_event", function))
    said = await run(client, tmp_path, *words)
    assert said.startswith("/v1/photos/p-")
    assert await published(redis) == [("upload-4716", "https://photos.example.org/IMG_4716.jpg")]


@pytest.mark.needs("node")
async def test_the_node_example_publishes(client: Client, redis: Redis, tmp_path: Path) -> None:
    fetching, *_ = examples("js")
    said = await run(client, tmp_path, str(require("node")), "--input-type=module", "--eval", fetching)
    assert said.startswith("/v1/photos/p-")
    assert await published(redis) == [("upload-4713", "https://photos.example.org/IMG_4713.jpg")]


@pytest.mark.needs(NODE_CLOUDEVENTS)
@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_the_official_javascript_sdk_publishes(
    client: Client, redis: Redis, tmp_path: Path, mode: str
) -> None:
    _, sdk, _ = examples("js")
    said = await run(client, tmp_path, *_node(NODE_CLOUDEVENTS, sdk.replace("binary", mode), tmp_path))
    assert said.startswith("/v1/photos/p-")
    assert await published(redis) == [("upload-4717", "https://photos.example.org/IMG_4717.jpg")]


@pytest.mark.needs(NODE_IOREDIS)
async def test_the_ioredis_example_publishes_once(
    client: Client, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    *_, direct = examples("js")
    words = _node(NODE_IOREDIS, direct, tmp_path)
    for fresh in ("1", "0"):
        said = await run(client, ROOT, *words, REDIS_URL=redis_url)
        assert re.fullmatch(rf"\[ 'OK', '[0-9]+-0', {fresh} \]\n", said)
    assert await published(redis) == [("upload-4718", "https://photos.example.org/IMG_4718.jpg")]


def _node(tool: str, example: str, folder: Path) -> tuple[str, str]:
    """The words that run an example which imports a package."""
    (folder / "node_modules").symlink_to(NODE_MODULES)
    (folder / "example.mjs").write_text(example)
    return str(require(tool)), str(folder / "example.mjs")


async def test_the_command_publishes(
    client: Client, redis: Redis, redis_url: str, settings: Settings, tmp_path: Path
) -> None:
    more = {"REDIS_URL": redis_url, "PHOTO_STORE_URL": settings.photo_store_url, "ENABLE_TRACING": "false"}
    await run(client, tmp_path, "sh", "-euc", COMMAND, **more)
    ((_, source_url),) = await published(redis)
    assert source_url == "https://photos.example.org/IMG_4719.jpg"


@pytest.mark.needs("curl")
async def test_curl_follows_a_session(client: Client, redis: Redis, tmp_path: Path) -> None:
    require("curl")
    process = await start(client, tmp_path, "sh", "-euc", f"exec {STREAM}")
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert (await process.stdout.readline()).startswith(b"retry: ")
        fields = codec.encode(
            msgspec.structs.replace(sample("photo.validated"), session_id="seewen-12-may"),
            event_id="e-1",
            source="erni",
            photo_id="p-1",
            session_id="seewen-12-may",
        )
        await submitted(client, "p-1", session="seewen-12-may")
        await call(redis, "XADD", "erni:photo.validated", "*", *fields)
        while (line := await process.stdout.readline()) != b"event: photo.validated\n":
            assert line
    process.terminate()
    await process.communicate()


@pytest.mark.needs("redis-server")  # its package brings redis-cli
async def test_the_redis_example_publishes(
    client: Client, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    await run(client, tmp_path, "sh", "-euc", BY_HAND, REDIS_URL=redis_url)
    ((_, source_url),) = await published(redis)
    assert source_url == "https://photos.example.org/IMG_4714.jpg"


def test_the_page_has_the_limits_the_fields_and_every_status() -> None:
    text = re.sub(r"\s+", " ", PAGE)
    assert f"up to {MAX_BATCH:,} events of one source, up to {MAX_BODY_BYTES // 1_000_000} MB" in text
    assert [name for name in FIELDS if f"`{name}`" not in text] == []
    table = PAGE[PAGE.index("| status |") :]
    shown = set(re.findall(r"\b[45]\d\d\b", table))
    assert shown >= {str(kind.status) for kind in problems.KINDS.values()} - {"405", "500"}

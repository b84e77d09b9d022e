"""POST /v1/photos: bytes into the store first, then the event; each file once, and only photos."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest

from console.gateway import photos_api
from events import codec
from events.types import PhotoSubmitted
from shared.photo_store import BlobStore
from tests.console.gateway.conftest import SOURCE, Client, key_of
from tests.console.gateway.test_events import ended
from tests.shared.delivery.harness import entries

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from redis.asyncio import Redis

    from shared.settings import Settings

INTAKE = "erni:photo.submitted"
JPEG = b"\xff\xd8\xff\xe0" + b"a picture" * 100
DIGEST = hashlib.sha256(JPEG).hexdigest()


async def submitted(redis: Redis) -> list[PhotoSubmitted]:
    found = [codec.decode("photo.submitted", "1-0", fields).event for fields in await entries(redis, INTAKE)]
    return [event for event in found if isinstance(event, PhotoSubmitted)]


def stored(settings: Settings) -> list[str]:
    """The names of the files in the store."""
    return [path.name for path in Path(settings.photo_store_url).rglob("*") if path.is_file()]


def form(**fields: str) -> aiohttp.FormData:
    data = aiohttp.FormData()
    for name, value in fields.items():
        data.add_field(name, value)
    data.add_field("photo", JPEG, filename="IMG_1.jpg", content_type="image/jpeg")
    return data


async def test_a_photo_is_stored_and_published_by_its_body_or_by_a_form(
    client: Client, redis: Redis, settings: Settings
) -> None:
    place = "session_id=s1&file_name=IMG_1.jpg&project=Wohnhaus+Seewen&library=Fotos"
    raw = await client.ask("POST", f"/v1/photos?{place}", data=JPEG, headers={"Content-Type": "image/jpeg"})
    assert raw.status == 202, raw.body
    assert raw.headers["Location"] == f"/v1/photos/{raw.document['photo_id']}"
    fields = {"session_id": "s1", "project": "Wohnhaus Seewen", "library": "Fotos"}
    again = await client.ask("POST", "/v1/photos", data=form(**fields))
    assert (again.status, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert again.document == {**raw.document, "replayed": True}
    (event,) = await submitted(redis)
    assert event.source_url == f"store:originals/{DIGEST}"
    assert (event.file_name, event.session_id) == ("IMG_1.jpg", "s1")
    assert event.hints is not None
    assert event.hints.project == "Wohnhaus Seewen"
    assert event.target is not None
    assert event.target.library == "Fotos"
    assert await BlobStore(settings.photo_store_url).get(event.source_url) == JPEG


async def test_the_idempotency_key_is_the_event_s_id(client: Client, redis: Redis) -> None:
    for value in ("upload-7", '"upload-7"'):
        answer = await client.ask("POST", "/v1/photos", data=JPEG, headers={"Idempotency-Key": value})
        assert (answer.status, answer.document["event_id"]) == (202, "upload-7")
    other = await client.ask("POST", "/v1/photos", data=JPEG + b"2", headers={"Idempotency-Key": "upload-7"})
    assert (other.status, other.problem) == (422, "idempotency-key-reused")
    assert len(await submitted(redis)) == 1


async def test_while_bytes_are_stored_the_same_key_gets_409(client: Client, redis: Redis) -> None:
    async def slow() -> Any:
        yield JPEG[:50]
        started.set()
        await go_on.wait()
        yield JPEG[50:]

    for number in itertools.count():
        started, go_on = asyncio.Event(), asyncio.Event()
        headers = {"Idempotency-Key": f"upload-{number}"}
        # its body is asked for (100 Continue) when the gateway begins with it
        first = asyncio.create_task(
            client.ask("POST", "/v1/photos", data=slow(), headers=headers, expect100=True)
        )
        await started.wait()
        second = await client.ask("POST", "/v1/photos", data=JPEG, headers=headers)
        if second.status == 409:
            break
        # the second one was read first: its answer is right, too, but this test needs the other order
        assert second.status == 202
        go_on.set()
        assert (await first).status in (202, 409)
    assert (second.problem, second.headers["Retry-After"]) == ("still-stored", "1")
    before = len(await submitted(redis))
    go_on.set()
    assert (await first).status == 202
    third = await client.ask("POST", "/v1/photos", data=JPEG, headers=headers)
    assert third.headers["Idempotent-Replayed"] == "true"
    assert len(await submitted(redis)) == before + 1


async def test_a_key_may_ask_for_the_header(client: Client, redis: Redis) -> None:
    client.key = await key_of(redis, "publisher", name="strict", needs_idempotency_key=True)
    answer = await client.ask("POST", "/v1/photos", data=JPEG)
    assert (answer.status, answer.problem) == (400, "idempotency-key-missing")
    answer = await client.ask("POST", "/v1/photos", data=JPEG, headers={"Idempotency-Key": "1"})
    assert answer.status == 202


@pytest.mark.parametrize(
    ("query", "body", "status", "problem", "sentence"),
    [
        ("", b"", 400, "bad-request", "there are no bytes"),
        ("", b"<html></html>", 415, "media-type-unknown", "the file is an HTML page"),
        ("", b'{"source_url": "store:a"}', 415, "media-type-unknown", "the file is a JSON document"),
        ("", b"\x1f\x8b\x08", 415, "media-type-unknown", "the file is a gzip archive"),
        ("?projekt=x", JPEG, 400, "bad-request", "there is no field 'projekt'"),
        ("?project=x&project=y", JPEG, 400, "bad-request", "the field project is there twice"),
        ("?session_id=open", JPEG, 400, "event-refused", "'open' is a reserved word"),
        ("?photo_id=a/b", JPEG, 400, "event-refused", "photo_id 'a/b' cannot be used"),
        ("?taken_at=gestern", JPEG, 400, "event-refused", "taken_at 'gestern' is neither a date nor a time"),
        ("?project=" + "x" * 256, JPEG, 400, "event-refused", "hints.project has 256 characters"),
    ],
)
async def test_bad_uploads_are_answered_in_a_sentence_and_nothing_is_published(
    client: Client,
    redis: Redis,
    settings: Settings,
    query: str,
    body: bytes,
    status: int,
    problem: str,
    sentence: str,
) -> None:
    answer = await client.ask("POST", f"/v1/photos{query}", data=body)
    assert (answer.status, answer.problem) == (status, problem), answer.body
    assert sentence in answer.detail
    assert await redis.xlen(INTAKE) == 0
    assert stored(settings) == []


@pytest.mark.parametrize("is_form", [False, True])
async def test_a_photo_that_is_too_large_is_not_stored(
    served: Callable[..., AbstractAsyncContextManager[Client]],
    settings: Settings,
    redis: Redis,
    *,
    is_form: bool,
) -> None:
    async with served(msgspec.structs.replace(settings, max_photo_bytes=len(JPEG) - 1)) as client:
        answer = await client.ask("POST", "/v1/photos", data=form() if is_form else JPEG)
        assert (answer.status, answer.problem) == (413, "too-large")
        assert "MAX_PHOTO_BYTES" in answer.detail
    assert await redis.xlen(INTAKE) == 0


async def test_a_file_name_is_text_and_never_a_path(client: Client, redis: Redis, settings: Settings) -> None:
    name = "../../<script>alert(1)</script>.jpg"
    data = aiohttp.FormData(quote_fields=False)
    data.add_field("photo", JPEG, filename=name)
    answer = await client.ask("POST", "/v1/photos", data=data)
    assert answer.status == 202
    (event,) = await submitted(redis)
    assert event.file_name == "script>.jpg"
    shown = await client.ask("GET", answer.headers["Location"])
    assert shown.headers["Content-Type"].startswith("application/json")
    answer = await client.ask("POST", "/v1/photos?session_id=s2&file_name=%3Cscript%3E.jpg", data=JPEG)
    shown = await client.ask("GET", answer.headers["Location"])
    assert shown.document["file_name"] == "<script>.jpg"
    assert stored(settings) == [DIGEST]


@pytest.mark.parametrize(
    ("content_type", "body", "sentence"),
    [
        ("multipart/form-data", b"x", "cannot be read as multipart/form-data"),
        ("multipart/form-data; boundary=b", b"--b\r\n", "there is no field ''"),
        ("multipart/form-data; boundary=b", b"no boundary at all", "cannot be read as multipart/form-data"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="project"\r\n\r\n'
            + b"x" * 70_000
            + b"\r\n--b--\r\n",
            "has more than 65,536 bytes",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="photo"\r\n\r\n\xff\xd8\xff\r\n' * 2 + b"--b--\r\n",
            "the form has two photos",
        ),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--\r\n--b--\r\n",
            "the form has a form inside",
        ),
        ("multipart/form-data; boundary=b", b"--b--\r\n", "there are no bytes"),
    ],
)
async def test_forms_that_are_wrong_are_answered_in_a_sentence(
    client: Client, redis: Redis, content_type: str, body: bytes, sentence: str
) -> None:
    answer = await client.ask("POST", "/v1/photos", data=body, headers={"Content-Type": content_type})
    assert answer.status in (400, 413), answer.body
    assert sentence in answer.detail
    assert await redis.xlen(INTAKE) == 0


async def test_a_store_that_does_not_work_or_is_another_one_is_503_and_publishes_nothing(
    served: Callable[..., AbstractAsyncContextManager[Client]],
    settings: Settings,
    redis: Redis,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_bytes(b"")
    broken = msgspec.structs.replace(settings, photo_store_url=str(tmp_path / "file" / "store"))
    async with served(broken) as client:
        answer = await client.ask("POST", "/v1/photos", data=JPEG)
        assert (answer.status, answer.problem) == (503, "store-away")
        assert "the photo store" in answer.detail
    await redis.hset("erni:system", mapping={"id": "abc", "store": "/elsewhere"})
    async with served(settings, name="second") as client:
        answer = await client.ask("POST", "/v1/photos", data=JPEG)
        assert (answer.status, answer.problem) == (503, "store-away")
        assert "is not the one that the agents on" in answer.detail
    assert await redis.xlen(INTAKE) == 0


async def test_a_key_without_a_source_uploads_nothing(
    served: Callable[..., AbstractAsyncContextManager[Client]], settings: Settings, redis: Redis
) -> None:
    async with served(settings, "admin") as client:
        answer = await client.ask("POST", "/v1/photos", data=JPEG)
        assert (answer.status, answer.problem) == (403, "source-not-allowed")
        client.key = await key_of(redis, "operator", source=SOURCE)
        assert (await client.ask("POST", "/v1/photos", data=JPEG)).status == 202


@pytest.mark.parametrize(
    ("kind", "begin"),
    [
        ("image/jpeg", b""),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="photo"\r\n\r\n',
        ),
    ],
)
async def test_a_slow_upload_ends_with_408_and_stores_nothing(
    client: Client,
    redis: Redis,
    settings: Settings,
    kind: str,
    begin: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(photos_api, "UPLOAD_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    head = f"POST /v1/photos HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.key}\r\n"
    writer.write(f"{head}Content-Type: {kind}\r\nContent-Length: 5000\r\n\r\n".encode() + begin + JPEG)
    assert b" 408 " in await asyncio.wait_for(reader.readline(), 10)
    await asyncio.wait_for(reader.readuntil(b"body-too-slow"), 10)
    await ended(reader)
    writer.close()
    assert await redis.xlen(INTAKE) == 0
    assert stored(settings) == []


async def test_an_upload_that_is_cut_off_stores_nothing(
    client: Client, redis: Redis, settings: Settings
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    head = f"POST /v1/photos HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.key}\r\n"
    writer.write(f"{head}Content-Length: {len(JPEG) + 9}\r\n\r\n".encode() + JPEG)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""
    # a request after it is answered after it
    assert (await client.ask("POST", "/v1/photos?file_name=b.jpg", data=JPEG)).status == 202
    assert await redis.xlen(INTAKE) == 1
    assert [photo.file_name for photo in await submitted(redis)] == ["b.jpg"]
    assert stored(settings) == [DIGEST]

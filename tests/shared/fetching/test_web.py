"""Photos from the web: what servers answer, and how much of it we read."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import aiohttp
import pytest

from shared.retry.classify import Kind, classify
from shared.retry.errors import HttpStatusError, PermanentError, dependency_of
from tests.shared.fetching.site import Site, answer

if TYPE_CHECKING:
    from pathlib import Path

    from shared.fetching.sources import Sources
    from tests.shared.fetching.conftest import OpenSources


async def fetched(sources: Sources, url: str) -> bytes:
    """The bytes of a source."""
    async with sources.fetch(url) as file:
        data = file.path.read_bytes()
        assert file.size == len(data)
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        return data


async def test_bytes_arrive_with_size_and_hash_whatever_the_server_calls_them(
    open_sources: OpenSources,
) -> None:
    body = bytes(range(256)) * 300
    answers = {
        "/a": answer(body, Content_Type="image/jpeg"),
        "/b": answer(body, Content_Type="text/html; charset=utf-8"),
        "/c": answer(body),
        # no length: the body ends with the connection
        "/d": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body,
        "/e": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    }
    async with Site(answers) as site, open_sources() as sources:
        for path in "abcd":
            assert await fetched(sources, site.url(f"/{path}")) == body
        assert await fetched(sources, site.url("/e")) == b"abc"


@pytest.mark.parametrize(
    "path",
    [
        "/signed/foo%27bar%28x%29.jpg?sig=a%2Fb%7Ec%3D%3D",
        "/signed/foo'bar(x)~.jpg?sig=a/b~c==&x=a+b%20c",
        "/a//b/c/%2e%2e/d.jpg?se=2026-01-01T00%3A00%3A00Z&se=2",
        "/a%c3%bc%C3%BC|[].jpg?q={}&&",
        "?q=%41",
    ],
)
async def test_an_address_is_sent_byte_for_byte_also_behind_a_redirect(
    path: str, open_sources: OpenSources
) -> None:
    sent = path if path.startswith("/") else "/" + path
    answers = {sent: answer(b"photo")}
    async with Site(answers) as site, open_sources() as sources:
        assert await fetched(sources, site.url(path)) == b"photo"
        site.answers["/far"] = answer(status="302 Found", Location=site.url(path))
        assert await fetched(sources, site.url("/far")) == b"photo"
        if path.startswith("/"):
            site.answers["/near"] = answer(status="302 Found", Location=path)
            assert await fetched(sources, site.url("/near")) == b"photo"


async def test_what_no_address_may_have_is_quoted(open_sources: OpenSources) -> None:
    answers = {"/Bild%20gr%C3%B6sser.jpg?a=b": answer(b"photo")}
    async with Site(answers) as site, open_sources() as sources:
        assert await fetched(sources, site.url("/Bild grösser.jpg?a=b#part")) == b"photo"


async def test_redirects_are_followed_three_times_and_not_four(open_sources: OpenSources) -> None:
    answers = {f"/{n}": answer(status="302 Found", Location=f"{n - 1}") for n in range(1, 5)}
    async with Site(answers | {"/0": answer(b"photo")}) as site, open_sources() as sources:
        assert await fetched(sources, site.url("/3")) == b"photo"
        with pytest.raises(PermanentError, match="more than 3 redirects"):
            await fetched(sources, site.url("/4"))


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        ("401 Unauthorized", Kind.PERMANENT, "it wants a login"),
        ("403 Forbidden", Kind.PERMANENT, "access is refused"),
        ("404 Not Found", Kind.PERMANENT, "check the source address"),
        ("410 Gone", Kind.PERMANENT, "it was removed there"),
        ("418 I'm a teapot", Kind.PERMANENT, "check the address"),
        ("429 Too Many Requests", Kind.TRANSIENT, "asked too often"),
        ("500 Internal Server Error", Kind.TRANSIENT, "the server has a problem"),
        ("503 Service Unavailable", Kind.TRANSIENT, "the server has a problem"),
    ],
)
async def test_an_answer_that_is_no_photo_is_said_and_classified(
    status: str, kind: Kind, words: str, open_sources: OpenSources
) -> None:
    said = answer(b"<html>", status=status)
    async with Site({"/photo.jpg?sig=CANARY": said}) as site, open_sources() as sources:
        with pytest.raises(HttpStatusError) as caught:
            await fetched(sources, site.url("/photo.jpg?sig=CANARY").replace("//", "//user:CANARY@"))
    assert classify(caught.value) is kind
    assert dependency_of(caught.value) == f"source/127.0.0.1:{site.port}"
    assert str(caught.value).startswith(f"http://127.0.0.1:{site.port}/photo.jpg answered {status[:3]}: ")
    assert words in str(caught.value)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (timedelta(hours=1), 3600.0),
        (timedelta(hours=-1), 0.0),
        ("soon", None),
    ],
    ids=["seconds", "a date to come", "a date gone by", "nonsense"],
)
async def test_how_long_the_server_wants_us_to_wait_is_passed_on(
    header: str | timedelta, seconds: float | None, open_sources: OpenSources
) -> None:
    if isinstance(header, timedelta):
        header = format_datetime(datetime.now(UTC) + header, usegmt=True)
    busy = answer(status="503 Service Unavailable", Retry_After=header)
    async with Site({"/photo.jpg": busy}) as site, open_sources() as sources:
        with pytest.raises(HttpStatusError) as caught:
            await fetched(sources, site.url())
    assert caught.value.retry_after == (None if seconds is None else pytest.approx(seconds, abs=60))


async def test_more_bytes_than_allowed_are_not_read_announced_or_not(open_sources: OpenSources) -> None:
    asked: list[int] = []

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(bytes(50_000))
            await writer.drain()
            asked.append(50_000)

    announced = b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n"
    async with (
        Site({"/endless": endless, "/announced": announced}) as site,
        open_sources(max_bytes=100_000) as sources,
    ):
        for path in ("/endless", "/announced"):
            with pytest.raises(PermanentError, match=r"100,00[01].*MAX_PHOTO_BYTES"):
                await fetched(sources, site.url(path))
    # What the buffers of both ends took beyond the limit.
    assert sum(asked) < 20_000_000


async def test_a_compressed_body_counts_as_what_it_becomes(open_sources: OpenSources) -> None:
    zeros = gzip.compress(bytes(50_000_000))
    answers = {
        "/small": answer(gzip.compress(b"photo"), Content_Encoding="gzip"),
        "/bomb": answer(zeros, Content_Encoding="gzip"),
        "/lie": answer(b"photo", Content_Encoding="gzip"),
    }
    assert len(zeros) < 100_000
    async with Site(answers) as site, open_sources(max_bytes=100_000) as sources:
        assert await fetched(sources, site.url("/small")) == b"photo"
        with pytest.raises(PermanentError, match="more than 100,000 bytes"):
            await fetched(sources, site.url("/bomb"))
        with pytest.raises(aiohttp.ClientPayloadError):
            await fetched(sources, site.url("/lie"))


async def test_a_body_that_trickles_ends_at_the_deadline_for_good(open_sources: OpenSources) -> None:
    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with Site({"/photo.jpg": trickle}) as site, open_sources(deadline=0.2) as sources:
        with pytest.raises(PermanentError, match=r"sent \d+ bytes in 0\.2 s .* a faster source"):
            await fetched(sources, site.url())


async def test_a_server_that_says_nothing_may_say_more_the_next_time(open_sources: OpenSources) -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await writer.wait_closed()

    async with Site({"/photo.jpg": silent}) as site, open_sources(deadline=0.2) as sources:
        with pytest.raises(TimeoutError, match=r"photo\.jpg sent nothing in 0\.2 s") as caught:
            await fetched(sources, site.url())
    assert classify(caught.value) is Kind.TRANSIENT


async def test_broken_connections_pass_through_as_the_sources_fault(open_sources: OpenSources) -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf a pho"
    async with Site({"/cut": cut}) as site, open_sources() as sources:
        with pytest.raises(aiohttp.ClientPayloadError) as cut_off:
            await fetched(sources, site.url("/cut"))
    async with open_sources() as sources:
        with pytest.raises(aiohttp.ClientConnectorError) as refused:
            await fetched(sources, site.url())
    for caught in (cut_off.value, refused.value):
        assert classify(caught) is Kind.TRANSIENT
        assert str(dependency_of(caught)).startswith("source/")


@pytest.mark.parametrize("url", ["http://", "http:///photo.jpg", "http://[::1/photo.jpg"])
async def test_an_address_that_is_none_is_said(url: str, open_sources: OpenSources) -> None:
    async with open_sources(hosts=("*",)) as sources:
        with pytest.raises(PermanentError, match="no http"):
            await fetched(sources, url)


async def test_hostile_bodies_take_little_memory(tmp_path: Path) -> None:
    """A process of its own fetches a gigabyte of zeros and an endless body; its peak is what counts."""
    zeros = gzip.compress(bytes(30_000_000)) * 33  # members one after the other are one stream

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(bytes(1_000_000))
            await writer.drain()

    script = """
import asyncio, resource, sys
from shared.photo_store import BlobStore
from shared.fetching.sources import Sources
from shared.retry.errors import PermanentError
from shared.settings import Settings
from shared.sharepoint.source import SharePointSource

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

async def main():
    settings = Settings(source_hosts=("127.0.0.1",))
    sources = Sources(settings, BlobStore(sys.argv[1]), sharepoint=SharePointSource(settings).download)
    await sources.open()
    for url in sys.argv[2:]:
        try:
            async with sources.fetch(url):
                sys.exit("a hostile body was taken")
        except PermanentError:
            pass
    await sources.close()

before = peak()
asyncio.run(main())
print(peak() - before)
"""
    bomb = answer(zeros, Content_Encoding="gzip")
    async with Site({"/bomb": bomb, "/endless": endless}) as site:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script, str(tmp_path), site.url("/bomb"), site.url("/endless")),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert int(out) < 60

"""No source reaches an address that is not public, unless its host is named literally."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from yarl import URL

from shared.fetching.guard import Hosts, is_public
from shared.retry.errors import PermanentError
from tests.shared.fetching.site import Names, Site, answer

if TYPE_CHECKING:
    from tests.shared.fetching.conftest import OpenSources


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104  # not bound to
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.2.1",
        "192.0.0.9",
        "192.0.0.170",
        "168.63.129.16",
        "::ffff:168.63.129.16",
        "64:ff9b::a83f:8110",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1",
        "64:ff9b:1::808:808",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:7f00:1::8080:8080",
        "/run/redis.sock",
        "",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("photos.example", "https://photos.example/a.jpg"),
        ("photos.example", "https://PHOTOS.example:8443/a.jpg"),
        ("photos.example.", "https://photos.example/a.jpg"),
        ("photos.example", "https://photos.example./a.jpg"),
        ("127.0.0.1:8090", "http://127.0.0.1:8090/a.jpg"),
        ("localhost", "http://localhost:1234/a.jpg"),
        ("[::1]:8090", "http://[::1]:8090/a.jpg"),
        ("::1", "http://[::1]:8090/a.jpg"),
        ("*.photos.example", "https://eu.photos.example/a.jpg"),
        ("*", "https://anything.example/a.jpg"),
        ("küche.example", "https://küche.example/a.jpg"),
        ("photos.example:6379", "http://photos.example:6379/a.jpg"),
        ("[::1]:6379", "http://[::1]:6379/a.jpg"),
    ],
)
def test_hosts_that_are_allowed(allowed: str, url: str) -> None:
    Hosts(["other.example", allowed]).check(URL(url))


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("photos.example", "https://evil.example/a.jpg"),
        ("photos.example", "https://photos.example.evil.example/a.jpg"),
        ("photos.example", "https://evilphotos.example/a.jpg"),
        ("photos.example", "https://photos.example@evil.example/a.jpg"),
        ("127.0.0.1:8090", "http://127.0.0.1:6379/a.jpg"),
        ("127.0.0.1", "http://2130706433/a.jpg"),
        ("photos.example", "http://photos.example:6379/a.jpg"),
        ("*.photos.example", "http://eu.photos.example:25/a.jpg"),
        ("*", "http://photos.example:2375/a.jpg"),
        ("photos.example:8080", "http://photos.example:22/a.jpg"),
        ("*.photos.example", "https://photos.example/a.jpg"),
        ("*.photos.example", "https://evilphotos.example/a.jpg"),
        ("", "https://photos.example/a.jpg"),
    ],
)
def test_hosts_that_are_not_allowed(allowed: str, url: str) -> None:
    with pytest.raises(PermanentError, match="SOURCE_HOSTS"):
        Hosts([allowed]).check(URL(url))


@pytest.mark.parametrize(
    ("allowed", "named"),
    [
        ("localhost", True),
        ("localhost:8090", True),
        ("*", False),
        ("*.localhost", False),
        ("localhost:1", False),
    ],
)
def test_only_a_host_named_literally_may_be_private(allowed: str, named: bool) -> None:  # noqa: FBT001  # a column
    assert Hosts([allowed]).named(URL("http://localhost:8090/a.jpg")) is named


async def test_without_source_hosts_nothing_is_fetched_from_the_web(open_sources: OpenSources) -> None:
    async with Site({"/photo.jpg": answer(b"photo")}) as site, open_sources(hosts=()) as sources:
        with pytest.raises(PermanentError, match="add it to SOURCE_HOSTS"):
            async with sources.fetch(site.url()):
                pass
    assert site.connections == 0


async def test_a_host_named_literally_may_have_a_private_address(open_sources: OpenSources) -> None:
    async with Site({"/photo.jpg": answer(b"photo")}) as site:
        for allowed in ("127.0.0.1", f"127.0.0.1:{site.port}"):
            async with open_sources(hosts=(allowed,)) as sources, sources.fetch(site.url()) as file:
                assert file.size == 5
        async with open_sources(hosts=("*", f"127.0.0.1:{site.port + 1}")) as sources:
            with pytest.raises(PermanentError, match="not public"):
                async with sources.fetch(site.url()):
                    pass
    assert site.connections == 2


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "0",
        "0.0.0.0",  # noqa: S104  # not bound to
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[::]",
        "①②⑦.0.0.1",
    ],
)
async def test_no_disguise_of_a_local_address_is_connected_to(host: str, open_sources: OpenSources) -> None:
    """The site listens on 127.0.0.1 and ::1, and everything public is allowed."""
    async with Site({}) as four, Site({}, host="::1") as six, open_sources(hosts=("*",)) as sources:
        for site in (four, six):
            with pytest.raises(PermanentError, match=r"not public|no http"):
                async with sources.fetch(site.url(host=host)):
                    pass
    assert four.connections == six.connections == 0


async def test_a_name_that_is_private_at_its_second_look_up_is_not_connected_to(
    open_sources: OpenSources, public_127_0_0_2: str
) -> None:
    names = Names({"rebind.example": [[public_127_0_0_2], ["127.0.0.1"]]})
    async with Site({}) as target, Site({}, host=public_127_0_0_2) as public:
        public.answers["/photo.jpg"] = answer(
            status="302 Found", Location=target.url("/secret", host="rebind.example")
        )
        async with open_sources(hosts=("*",), resolver=names) as sources:
            with pytest.raises(PermanentError, match="not public"):
                async with sources.fetch(public.url(host="rebind.example")):
                    pass
    assert names.asked == ["rebind.example"] * 2
    assert target.connections == 0
    assert public.connections == 1


async def test_of_mixed_addresses_only_the_public_one_is_connected_to(
    open_sources: OpenSources, public_127_0_0_2: str
) -> None:
    async with Site({"/photo.jpg": answer(b"photo")}, host=public_127_0_0_2) as public:
        # The same port on the private address, so that a connection to it would be accepted.
        with socket.create_server(("127.0.0.1", public.port)) as private:
            private.setblocking(False)  # noqa: FBT003  # the socket's own signature
            names = Names({"mixed.example": [["127.0.0.1", "10.0.0.1", public_127_0_0_2]]})
            async with (
                open_sources(hosts=("*",), resolver=names) as sources,
                sources.fetch(public.url(host="mixed.example")) as file,
            ):
                assert file.size == 5
            with pytest.raises(BlockingIOError):
                private.accept()


@pytest.mark.parametrize(
    "location", ["http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/latest"]
)
async def test_a_redirect_to_a_metadata_address_is_not_followed(
    location: str, open_sources: OpenSources, public_127_0_0_2: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    connect, connected = loop.sock_connect, []

    async def counted(connection: socket.socket, address: tuple[str, int]) -> None:
        connected.append(address[0])
        await connect(connection, address)

    monkeypatch.setattr(loop, "sock_connect", counted)
    redirect = answer(status="302 Found", Location=location)
    async with (
        Site({"/photo.jpg": redirect}, public_127_0_0_2) as site,
        open_sources(hosts=("*",)) as sources,
    ):
        with pytest.raises(PermanentError, match="not public"):
            async with sources.fetch(site.url()):
                pass
    assert connected == [public_127_0_0_2]


async def test_a_redirect_away_from_the_named_hosts_is_not_followed(open_sources: OpenSources) -> None:
    async with Site({"/other.jpg": answer(b"other")}) as target:
        redirect = answer(status="301 Moved", Location=target.url("/other.jpg", host="localhost"))
        async with Site({"/photo.jpg": redirect}) as site, open_sources(hosts=("127.0.0.1",)) as sources:
            with pytest.raises(PermanentError, match="may not be fetched from 'localhost'"):
                async with sources.fetch(site.url()):
                    pass
    assert target.connections == 0


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://127.0.0.1/", "//", "http://", ""])
async def test_a_redirect_to_something_else_than_the_web_is_not_followed(
    location: str, open_sources: OpenSources
) -> None:
    redirect = answer(status="302 Found", Location=location)
    async with Site({"/photo.jpg": redirect}) as site, open_sources() as sources:
        with pytest.raises(PermanentError, match=r"leads to something that is no http|redirects"):
            async with sources.fetch(site.url()):
                pass


async def test_no_proxy_is_taken_from_the_environment(
    open_sources: OpenSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Site({}) as proxy, Site({"/photo.jpg": answer(b"photo")}) as site:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url(""))
        async with open_sources() as sources, sources.fetch(site.url()) as file:
            assert file.size == 5
    assert proxy.connections == 0

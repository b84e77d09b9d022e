"""GET /v1/stream: ends are sent once and resumed, steps as they are seen, and no client holds the gateway."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec
import pytest

from console.gateway import cursors, stream_api
from console.gateway.server import Gateway
from events import codec
from events.connection import call
from events.identities import SessionId
from events.keys import lane_of
from events.publisher import Publisher
from events.types import PhotoFailed, PhotoSubmitted, PhotoValidated, SessionReported
from tests.console.gateway.conftest import SOURCE, Client, event, key_of
from tests.console.gateway.test_records import went
from tests.events.samples import sample
from tests.shared.delivery.harness import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from redis.asyncio import Redis

    from events.types import Event
    from sandbox.redis_server import Valkey
    from shared.settings import Settings

SOON: Final = 20.0


class Message(msgspec.Struct, frozen=True):
    """A server-sent event."""

    event: str
    id: str
    data: Any


class Stream:
    """Reads a stream as a browser does."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.last_id = ""
        self.comments = 0

    async def next(self) -> Message | None:
        """The next event that has data; None when the stream has ended."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(SOON):
            async for line in self.answer.content:
                text = line.decode().rstrip("\n")
                if text.startswith(":"):
                    self.comments += 1
                elif text:
                    name, _, value = text.partition(": ")
                    fields[name] = value
                else:
                    self.last_id = fields.get("id", self.last_id)
                    if "data" in fields:
                        data = msgspec.json.decode(fields["data"])
                        return Message(fields["event"], fields.get("id", ""), data)
                    fields = {}
        return None

    async def ids(self, number: int) -> list[str]:
        """The photos of the next ends."""
        found = []
        for _ in range(number):
            message = await self.next()
            assert message is not None
            found.append(message.data["subject"])
        return found


@asynccontextmanager
async def following(client: Client, query: str, last_id: str = "") -> AsyncIterator[Stream]:
    """Follow a stream; inside, its first line has come, so that it is sent what happens from now on."""
    headers = key_header(client) | ({"Last-Event-ID": last_id} if last_id else {})
    async with client.http.get(f"{client.url}/v1/stream?{query}", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert (await answer.content.readline()).startswith(b"retry: ")
        yield Stream(answer)


def key_header(client: Client) -> dict[str, str]:
    return {"Authorization": f"Bearer {client.key}"}


async def submitted(client: Client, *photos: str, session: str = "s1", **more: Any) -> None:
    """Publish photos, so that somebody owns them."""
    batch = [
        event(
            f"{session}-{photo}", subject=photo, data={"source_url": f"store:{photo}", "session_id": session}
        )
        | more
        for photo in photos
    ]
    assert (await client.publish(batch)).status == 202


async def ended(
    redis: Redis,
    photo: str,
    name: str = "photo.validated",
    session: str = "s1",
    lanes: int = 1,
    text: str = "",
    source: str = "",
) -> None:
    """Write the end of a photo as the settle does; `source`: of its submission."""
    changes: dict[str, Any] = {"session_id": session}
    whole: Event = sample(name)
    if isinstance(whole, PhotoValidated | PhotoFailed):
        changes["photo_id"] = photo
    if text:
        changes["file_name"] = text
    whole = msgspec.structs.replace(whole, **changes)
    lane = lane_of(session, lanes)
    photo_id = None if isinstance(whole, SessionReported) else photo
    fields = codec.encode(
        whole,
        event_id=f"end-{photo}",
        source="erni",
        photo_id=photo_id,
        session_id=session,
        origin=source.encode(),
    )
    await call(redis, "XADD", lane.stream(name), "*", *fields)
    await redis.expire(lane.stream(name), 1000)


async def test_ends_come_as_cloudevents_and_only_those_that_were_asked_for(
    client: Client, redis: Redis
) -> None:
    await submitted(client, "p-1", "p-2")
    await submitted(client, "p-3", session="other")
    async with following(client, "session=s1") as stream:
        await ended(redis, "p-3", session="other")
        await ended(redis, "p-1")
        await ended(redis, "p-2", "photo.failed")
        await ended(redis, "", "session.reported")
        found = [await stream.next() for _ in range(3)]
    assert sorted(one.event for one in found if one) == [
        "photo.failed",
        "photo.validated",
        "session.reported",
    ]
    (validated,) = (one.data for one in found if one and one.event == "photo.validated")
    assert (validated["specversion"], validated["type"], validated["id"]) == (
        "1.0",
        "photo.validated",
        "end-p-1",
    )
    assert (validated["subject"], validated["sessionid"]) == ("p-1", "s1")
    assert msgspec.convert(validated["data"], PhotoValidated).verdict == "needs_person"
    assert not [name for name in validated if name.startswith("erni")]


@pytest.mark.parametrize("lanes", [1, 4])
async def test_a_client_that_comes_again_misses_nothing_and_gets_nothing_twice(
    served: Callable[..., AbstractAsyncContextManager[Client]], settings: Settings, redis: Redis, lanes: int
) -> None:
    photos = [(f"p-{number}", f"s{number % 5}") for number in range(500)]
    async with served(msgspec.structs.replace(settings, lanes=lanes)) as client:
        for session in {session for _, session in photos}:
            await submitted(client, *(photo for photo, of in photos if of == session), session=session)
        seen: list[str] = []
        async with following(client, f"source={SOURCE}") as stream:
            for photo, session in photos[:50]:
                await ended(redis, photo, session=session, lanes=lanes)
            seen += await stream.ids(20)  # the others were on the way when the line broke
            last_id = stream.last_id
        for photo, session in photos[50:450]:
            await ended(redis, photo, session=session, lanes=lanes)
        async with following(client, f"source={SOURCE}", last_id) as stream:
            for photo, session in photos[450:]:
                await ended(redis, photo, session=session, lanes=lanes)
            seen += await stream.ids(480)
    assert sorted(seen) == sorted(photo for photo, _ in photos)


async def test_zero_begins_with_all_that_is_kept_and_without_an_id_it_begins_now(
    client: Client, redis: Redis
) -> None:
    await submitted(client, "p-1", "p-2")
    await ended(redis, "p-1")
    async with following(client, "session=s1") as stream:
        await ended(redis, "p-2")
        assert await stream.ids(1) == ["p-2"]
    async with following(client, "session=s1", "0") as stream:
        assert await stream.ids(2) == ["p-1", "p-2"]


async def test_a_publisher_follows_its_own_photos_only(client: Client, redis: Redis) -> None:
    await submitted(client, "mine")
    client.key, mine = await key_of(redis, "publisher", name="other", source="urn:other"), client.key
    await submitted(client, "theirs", source="urn:other")
    answer = await client.ask("GET", f"/v1/stream?source={SOURCE}")
    assert (answer.status, answer.problem) == (403, "source-not-allowed")
    client.key = mine
    viewer = Client(client.port, client.http, await key_of(redis, "viewer"))
    async with (
        following(client, "session=s1") as own,
        following(viewer, "session=s1") as all_,
        following(viewer, "source=urn:other") as of_other,
    ):
        for photo in ("nobody-s", "theirs", "mine"):
            await ended(redis, photo)
        assert await own.ids(1) == ["mine"]
        assert await all_.ids(3) == ["nobody-s", "theirs", "mine"]
        assert await of_other.ids(1) == ["theirs"]


async def test_a_publisher_s_ends_are_there_as_long_as_their_stream_although_the_records_are_gone(
    client: Client, redis: Redis
) -> None:
    await submitted(client, "p-1", "p-2", "p-3")
    for photo, name, source in (
        ("p-1", "photo.validated", SOURCE),
        ("theirs", "photo.validated", "urn:other"),
        ("p-2", "photo.validated", ""),  # an older version wrote it
        ("p-3", "photo.validated", SOURCE),
        ("", "session.reported", SOURCE),
    ):
        await ended(redis, photo, name, source=source)
    await redis.delete("erni:photo:p-1", "erni:photo:p-3", "erni:session:s1:source")
    async with following(client, f"source={SOURCE}", "0") as stream:
        found = [await stream.next() for _ in range(4)]
    assert sorted(one.data.get("subject", one.event) for one in found if one) == [
        "p-1",
        "p-2",
        "p-3",
        "session.reported",
    ]


async def test_a_session_s_report_is_for_who_began_it_although_another_s_photo_was_settled_first(
    client: Client, redis: Redis
) -> None:
    theirs = PhotoSubmitted(source_url="store:a", session_id=SessionId("s1"))
    await Publisher(redis, source="urn:other").publish(theirs)
    await submitted(client, "mine")
    await ended(redis, "", "session.reported", source=SOURCE)
    await ended(redis, "mine", source=SOURCE)
    async with following(client, f"source={SOURCE}", "0") as stream:
        assert await stream.ids(1) == ["mine"]
    client.key = await key_of(redis, "publisher", name="other", source="urn:other")
    async with following(client, "source=urn:other", "0") as stream:
        found = await stream.next()
    assert found is not None
    assert found.event == "session.reported"


async def test_steps_of_a_session_are_shown_as_they_are_seen(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.gateway.steps.LOOK_SECONDS", 0.02)
    await redis.config_resetstat()
    await submitted(client, "p-1", "p-2")
    await _began(redis, "p-1")
    await went(redis, "p-1", "schema_extractor")
    async with following(client, "session=s1") as stream:
        await until(lambda: _looked(redis))
        await went(redis, "p-1", "photo_fetcher", outcome="postponed")
        first = await stream.next()
        await _began(redis, "p-2")
        await went(redis, "p-2", "schema_extractor")
        second = await stream.next()
    assert first is not None
    assert (first.event, first.id) == ("step", "")
    assert first.data["photo_id"] == "p-1"
    assert (first.data["agent"], first.data["outcome"]) == ("photo_fetcher", "postponed")
    assert second is not None
    assert (second.data["photo_id"], second.data["agent"]) == ("p-2", "schema_extractor")


async def _began(redis: Redis, photo: str) -> None:
    await redis.zadd("erni:session:s1:photos", {photo: 1.0})
    await redis.expire("erni:session:s1:photos", 1000)


async def _looked(redis: Redis) -> bool:
    found = await redis.info("commandstats")
    return bool(found.get("cmdstat_hmget", {"calls": 0})["calls"])


async def test_an_idle_stream_has_heartbeats_which_move_its_place_on(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_api, "HEARTBEAT_SECONDS", 0.05)
    await submitted(client, "p-1")
    async with following(client, "session=s1") as stream:
        await ended(redis, "elsewhere", session="s2")
        while stream.comments < 5:
            async with asyncio.timeout(SOON):
                line = await stream.answer.content.readline()
            stream.comments += line.startswith(b":")
            if line.startswith(b"id: "):
                stream.last_id = line[4:].decode().strip()
        newest = await call(redis, "XREVRANGE", "erni:photo.validated", "+", "-", "COUNT", 1)
        place = (None, "photo.validated")
        places = [(None, name) for name in ("photo.failed", "photo.validated", "session.reported")]
        millis, sequence = cursors.read(stream.last_id, places)[place]
        assert f"{millis}-{sequence}" == newest[0][0].decode()


async def test_a_removed_key_s_stream_ends(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_api, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr("console.gateway.access.REMEMBERED_SECONDS", 0.0)
    async with following(client, "session=s1") as stream:
        await redis.delete("erni:keys")
        assert await stream.next() is None


async def test_the_gateway_stops_at_once_although_clients_follow(settings: Settings, redis: Redis) -> None:
    gateway = Gateway(settings)
    await gateway.start()
    async with aiohttp.ClientSession() as http:
        client = Client(gateway.port, http, await key_of(redis, "viewer"))
        async with following(client, "session=s1") as stream:
            ending = asyncio.ensure_future(stream.next())
            async with asyncio.timeout(SOON):
                await gateway.stop()
            # a cut connection would raise here
            assert await ending is None


async def test_a_client_that_takes_nothing_is_closed_and_the_others_go_on(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_api, "MAX_WAITING", 50)
    monkeypatch.setattr(stream_api, "WRITE_SECONDS", 0.2)
    monkeypatch.setattr(stream_api, "MAX_STREAMS_OF_A_KEY", 2)
    await submitted(client, "p-1")
    with socket.socket() as takes_nothing:
        takes_nothing.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        takes_nothing.settimeout(0)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(takes_nothing, ("127.0.0.1", client.port))
        request = (
            f"GET /v1/stream?session=s1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.key}"
        )
        await loop.sock_sendall(takes_nothing, f"{request}\r\n\r\n".encode())
        assert await loop.sock_recv(takes_nothing, 15) == b"HTTP/1.1 200 OK"
        async with following(client, "session=s1") as other:
            assert (await client.ask("GET", "/v1/stream?session=s1")).status == 429
            text = "x" * 50_000
            for _ in range(20):  # 20 MB: its buffers, the kernel's among them, take some
                await asyncio.gather(*(ended(redis, "p-1", text=text) for _ in range(20)))
                assert await other.ids(20) == ["p-1"] * 20

            async def is_closed() -> bool:
                async with client.http.get(
                    f"{client.url}/v1/stream?session=s1", headers=key_header(client)
                ) as answer:
                    return answer.status == 200

            await until(is_closed)
            await ended(redis, "p-1")
            assert await other.ids(1) == ["p-1"]


async def test_bad_requests_are_answered_in_a_sentence(client: Client) -> None:
    for query, why in (
        ("", "names nothing to follow"),
        ("session=a%20b", "session_id 'a b' cannot be used"),
        ("source=a%20b", "is no URI reference"),
    ):
        answer = await client.ask("GET", f"/v1/stream?{query}")
        assert (answer.status, answer.problem) == (400, "bad-request"), query
        assert why in answer.detail
    for last_id in ("x", "1:2", "zzz:1,2,3.!", "1:9,9,9", "1:,,,", "é" * 5, "1" * 40 + ":,,"):
        answer = await client.ask("GET", "/v1/stream?session=s1", headers={"Last-Event-ID": last_id})
        assert (answer.status, answer.problem) == (400, "bad-request"), last_id
        assert "is no id of this stream" in answer.detail
    client.key = ""
    assert (await client.ask("GET", "/v1/stream?session=s1")).status == 401


async def test_there_is_a_limit_of_open_streams(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_api, "MAX_STREAMS_OF_A_KEY", 2)
    async with following(client, "session=s1"), following(client, "session=s2"):
        answer = await client.ask("GET", "/v1/stream?session=s3")
        assert (answer.status, answer.problem) == (429, "too-many-streams")
        assert int(answer.headers["Retry-After"]) > 0


async def test_with_redis_away_it_is_503_and_an_open_stream_goes_on_afterwards(
    served: Callable[..., AbstractAsyncContextManager[Client]], settings: Settings, own_redis_server: Valkey
) -> None:
    from redis.asyncio import Redis

    async with (
        Redis.from_url(own_redis_server.url, protocol=2) as there,
        served(msgspec.structs.replace(settings, redis_url=own_redis_server.url)) as client,
    ):
        client.key = await key_of(there, "viewer")
        assert (await client.ask("GET", "/v1/photos/p-1")).status == 404
        own_redis_server.kill()
        answer = await client.ask("GET", "/v1/stream?session=s1")
        assert (answer.status, answer.problem) == (503, "redis-away")
        own_redis_server.start()
        async with following(client, "session=s1") as stream:
            own_redis_server.kill()
            own_redis_server.start()
            await ended(there, "p-1")
            assert await stream.ids(1) == ["p-1"]


async def test_all_clients_of_a_lane_share_one_reader_which_ends_without_any(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        stream_api, "HEARTBEAT_SECONDS", 0.05
    )  # which finds out that nobody is there any more
    viewer = Client(client.port, client.http, await key_of(redis, "viewer"))

    async def readers() -> int:
        return sum("b" in one["flags"] for one in await redis.client_list())  # they wait in XREAD

    async with (
        following(viewer, "session=s1"),
        following(viewer, "session=s2"),
        following(viewer, "source=urn:x"),
    ):
        await until(lambda: _is(readers, 1))
    await ended(redis, "p-1")  # it wakes, and finds nobody
    await until(lambda: _is(readers, 0))
    async with following(viewer, "session=s1") as stream:
        await ended(redis, "p-2")
        assert await stream.ids(1) == ["p-2"]


async def _is(count: Callable[[], Any], number: int) -> bool:
    return bool(await count() == number)


@pytest.mark.parametrize(
    "positions",
    [
        {(None, "a"): (0, 0), (None, "b"): (0, 0)},
        {(None, "a"): (1_764_342_000_123, 7), (None, "b"): (1_764_342_000_123, 0), (None, "c"): (0, 0)},
        {(lane, "a"): (1_764_342_000_000 + lane, lane) for lane in range(1, 40)},
    ],
)
def test_a_place_is_read_as_it_was_written(positions: dict[Any, Any]) -> None:
    text = cursors.write(positions)
    assert text.isascii()
    assert cursors.read(text, reversed(list(positions))) == positions
    assert len(text) < 12 + 9 * len(positions)

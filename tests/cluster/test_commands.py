"""What a person uses works on a cluster as on a single server: each command once, and the gateway."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest

from console.gateway.server import Gateway
from console.main import main
from events.connection import connect
from events.identities import SessionId
from events.keys import all_lanes, lane_of
from events.types import PhotoSubmitted
from shared.operations import access_keys
from shared.retry.errors import PermanentError
from tests.cluster.conftest import LANES, Cluster
from tests.console.gateway.conftest import SOURCE, Client, event
from tests.shared.delivery.harness import extracted, publisher, running, settings_for, until
from tests.shared.photos.pictures import jpeg

if TYPE_CHECKING:
    from collections.abc import Callable

    from events.keys import Keys
    from events.types import SchemaExtracted
    from shared.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(kept_cluster: Cluster, tmp_path: Path) -> Settings:
    return settings_for(
        kept_cluster.url, lanes=LANES, http_port=0, photo_store_url=str(tmp_path / "store"), lease_seconds=5.0
    )


@pytest.fixture
def run(settings: Settings, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program of ours, as a person does."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *words],
            env={
                **{name: os.environ[name] for name in ("PATH", "HOME")},
                "PYTHONPATH": os.pathsep.join(sys.path),
                "REDIS_URL": settings.redis_url,
                "LANES": str(LANES),
                "PHOTO_STORE_URL": settings.photo_store_url,
                "ENABLE_TRACING": "0",
                **environment,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture
def erni(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Type a command in this process; returns its JSON document, or what it says if it has none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    monkeypatch.setenv("LANES", str(LANES))
    monkeypatch.setenv("PHOTO_STORE_URL", settings.photo_store_url)
    monkeypatch.setenv("ENABLE_TRACING", "0")

    def erni(*words: str, code: int = 0, as_json: bool = True) -> Any:
        capsys.readouterr()
        found = main([*words, *(["--json"] if as_json else [])])
        said = capsys.readouterr()
        assert found == code, (words, said.err)
        return msgspec.json.decode(said.out) if as_json else said.out

    return erni


def test_every_command_once(
    settings: Settings,
    erni: Callable[..., Any],
    run: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    lane = lane_of(SessionId("seewen"), LANES)
    photos = []
    for number in range(4):
        photos.append(str(tmp_path / f"{number}.jpg"))
        Path(photos[-1]).write_bytes(jpeg() + bytes(number))
    sent = erni("publish", "--session", "seewen", *photos)
    assert len(sent["photos"]) == 4, sent
    asyncio.run(work(settings, lane, dies=("2.jpg", "3.jpg")))

    (first, *_) = erni("status", code=1)["agents"]
    assert (first["agent"], first["dead"], first["backlog"]) == ("schema_extractor", 2, 0)
    letters = erni("dead", "list")
    assert letters["total"] == 2
    # counted by Redis, the newest read in one round trip
    said = erni("dead", "list", as_json=False)
    assert ("2.jpg" in said, "2 dead letters" in said) == (True, True), said
    assert "no such library" in str(erni("dead", "show", letters["groups"][0]["letters"][0]["id"]))
    assert erni("pause", "schema_extractor")
    assert erni("resume", "schema_extractor")
    assert "replayed" in str(erni("dead", "replay", "--photo", "2.jpg"))
    asyncio.run(work(settings, lane))
    assert erni("dead", "discard", "--all", "--yes")
    assert erni("dead", "list")["total"] == 0

    assert "seewen" in str(erni("session", "list"))
    assert "seewen" in str(erni("session", "show", "seewen"))
    assert len(erni("photo", "list", "--session", "seewen")["photos"]) == 4
    photo = next(one["photo_id"] for one in sent["photos"] if one["file"] == "0.jpg")
    assert photo in str(erni("photo", "show", photo))
    assert photo in str(erni("photo", "show", "0.jpg"))
    assert erni("session", "close", "seewen", "--expected", "4")
    assert erni("report", "seewen")
    doctor = erni("doctor", code=1, as_json=False)
    assert f"cluster with {LANES} lanes" in doctor
    assert "of the lanes, 127.0.0.1:" in doctor
    assert "erni_app_" in str(erni("key", "add", "app", "--role", "publisher", "--source", SOURCE))
    assert "app" in str(erni("key", "list"))
    cli = run("console.main", "redis-cli", "XLEN", lane.stream("schema.extracted"))
    assert cli.stdout.strip() == "3", cli.stderr


def test_a_session_is_forgotten(settings: Settings, erni: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg())
    erni("publish", "--session", "gone", str(tmp_path / "1.jpg"))
    asyncio.run(work(settings, lane_of(SessionId("gone"), LANES), dies=("1.jpg",)))
    assert erni("dead", "list")["total"] == 1
    erni("session", "forget", "gone", "--yes")
    assert erni("dead", "list")["total"] == 0
    assert "gone" not in str(erni("session", "list"))

    async def left() -> list[str]:
        async with connect(settings.redis_url) as redis:
            return [key.decode() async for key in redis.scan_iter(match="erni:*session:gone*")]

    assert asyncio.run(left()) == []


async def work(settings: Settings, lane: Keys, *, dies: tuple[str, ...] = ()) -> None:
    """Let the first agent hand on what waits in a lane; photos of these names become dead letters."""

    async def do(photo: PhotoSubmitted) -> SchemaExtracted:
        if photo.file_name in dies:
            raise PermanentError("no such library")
        return extracted(photo)

    async with running(settings, do), connect(settings.redis_url) as redis:
        await until(lambda: _is_empty(redis, lane.stream("photo.submitted")))


async def _is_empty(redis: Any, stream: str) -> bool:
    return await _length(redis, stream, 0)


async def _length(redis: Any, stream: str, wanted: int) -> bool:
    return bool(await redis.xlen(stream) == wanted)


async def test_the_gateway_publishes_and_answers(settings: Settings) -> None:
    async def do(photo: PhotoSubmitted) -> SchemaExtracted:
        return extracted(photo)

    gateway = Gateway(settings)
    await gateway.start()
    try:
        async with connect(settings.redis_url) as redis, aiohttp.ClientSession() as http:
            client = Client(
                gateway.port, http, await access_keys.add(redis, "app", "publisher", source=SOURCE)
            )
            batch = [
                event(
                    number,
                    data={
                        "source_url": f"https://photos.example.org/{number}.jpg",
                        "session_id": f"s{number}",
                    },
                )
                for number in range(12)
            ]
            answer = await client.publish(batch)
            assert answer.status == 202, answer.body
            accepted = answer.document["events"]
            assert [one["replayed"] for one in accepted] == [False] * 12
            again = await client.publish(batch)
            assert [one["replayed"] for one in again.document["events"]] == [True] * 12
            async with running(settings, do):

                async def handed_on() -> bool:
                    found = [await redis.xlen(lane.stream("schema.extracted")) for lane in all_lanes(LANES)]
                    return sum(found) == 12 and all(found)

                await until(handed_on)
                for one in accepted:
                    photo = await client.ask("GET", one["photo"])
                    assert (photo.status, photo.document["photo_id"]) == (200, one["photo_id"])
                assert (await client.ask("GET", "/v1/sessions/s3")).status == 200
                assert (await client.ask("GET", "/ready")).status == 200
    finally:
        await gateway.stop()


async def test_a_hand_written_entry_in_a_foreign_lane_is_moved_to_its_own(settings: Settings) -> None:
    own = lane_of(SessionId("s1"), LANES)
    foreign = next(lane for lane in all_lanes(LANES) if lane.lane != own.lane)
    async with connect(settings.redis_url) as redis:
        data = msgspec.json.encode(PhotoSubmitted(source_url="store:1", session_id=SessionId("s1")))
        await redis.xadd(foreign.stream("photo.submitted"), {"data": data})
        async with running(settings, lanes=[foreign]), running(settings, lanes=[own]) as (_, agent):
            await until(lambda: _length(redis, own.stream("schema.extracted"), 1))
            assert len(agent.handled) == 1
        assert await redis.xlen(foreign.stream("schema.extracted")) == 0
        assert await redis.xlen(foreign.stream("photo.submitted")) == 0


@pytest.mark.parametrize(
    ("words", "environment", "code", "says"),
    [
        ((), {"LANES": "1"}, 1, "this server is a cluster: set LANES (6, for example)"),
        (("--lanes", "3-7"), {}, 2, "--lanes '3-7': there are lanes 1 to 4 (LANES=4)"),
        (("--lanes", "one"), {}, 2, "--lanes 'one': give numbers and ranges, such as 1-4 or 1,3"),
        ((), {"REDIS_URL": "redis+cluster://127.0.0.1:7000/1"}, 2, "a cluster has database 0 only"),
        ((), {"REDIS_URL": "{node}"}, 1, "write redis+cluster:// instead of redis://"),
        ((), {"REDIS_URL": "{single}"}, 1, "write redis:// instead of redis+cluster://"),
    ],
)
async def test_an_agent_that_cannot_work_says_why(
    kept_cluster: Cluster,
    redis_url: str,
    run: Callable[..., subprocess.CompletedProcess[str]],
    words: tuple[str, ...],
    environment: dict[str, str],
    code: int,
    says: str,
) -> None:
    single = redis_url.replace("redis://", "redis+cluster://")
    environment = {
        name: value.format(node=kept_cluster.primaries[0].url, single=single)
        for name, value in environment.items()
    }
    answer = await asyncio.to_thread(run, "consumers", "vision_analyzer", *words, **environment)
    assert (answer.returncode, "Traceback" in answer.stderr) == (code, False), answer.stderr
    assert says in answer.stderr


@pytest.mark.parametrize("command", ["status", "doctor", "publish"])
async def test_a_plain_address_is_a_sentence_for_commands(
    kept_cluster: Cluster, run: Callable[..., subprocess.CompletedProcess[str]], command: str, tmp_path: Path
) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg())
    words = (command, *(["1.jpg"] if command == "publish" else []))
    answer = await asyncio.to_thread(run, "console.main", *words, REDIS_URL=kept_cluster.primaries[0].url)
    said = answer.stdout + answer.stderr
    assert (answer.returncode, "Traceback" in said) == (1, False), said
    assert "write redis+cluster:// instead of redis://" in said


async def test_doctor_says_which_lanes_nobody_reads(
    settings: Settings, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """LANES was 4 and is 2 now: what waits in lanes 3 and 4 waits for agents with LANES=4."""
    async with publisher(settings) as publish:
        for number in range(8):
            await publish.publish(
                PhotoSubmitted(source_url=f"store:{number}", session_id=SessionId(f"s{number}"))
            )
    answer = await asyncio.to_thread(run, "console.main", "doctor", LANES="2")
    assert "entries wait in lanes that LANES=2 does not have (2 in lane 3, 2 in lane 4)" in answer.stdout
    assert "run agents with LANES=4 too" in answer.stdout
    answer = await asyncio.to_thread(run, "console.main", "doctor")
    assert "entries wait in lanes" not in answer.stdout
    async with connect(settings.redis_url) as redis:

        async def waiting(stream: str) -> list[int]:
            return [int(await redis.xlen(lane.stream(stream))) for lane in all_lanes(LANES)]

        async def all_handed_on() -> bool:
            return sum(await waiting("schema.extracted")) == 8

        async def theirs_are_done() -> bool:
            return (await waiting("photo.submitted"))[:2] == [0, 0]

        assert sum(await waiting("photo.submitted")) == 8
        async with running(settings_for(settings.redis_url, lanes=2, lease_seconds=5.0)):
            await until(theirs_are_done)
        assert await waiting("photo.submitted") == [0, 0, 2, 2], "what they do not read stays"
        async with running(settings):
            await until(all_handed_on)

"""An address of sentinels leads to the primary of the moment, or a sentence says why not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from events.connection import Trouble, call, connect, primary_of, trouble_of
from events.keys import Keys
from events.publisher import Publisher
from events.sentinel import SentinelError
from events.types import PhotoSubmitted
from sandbox.redis_server import HOST, free_port
from tests.project.test_redis_tls import certify
from tests.sentinel.conftest import NAME, SentinelSet, wait_until
from tests.shared.delivery.harness import running, settings_for, until
from tests.tools import ROOT, require

if TYPE_CHECKING:
    from redis.asyncio import Redis

ERNI = str(Path(sys.executable).with_name("erni"))


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of ours, as a person gives it."""
    return subprocess.run(
        list(words),
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def role(url: str, password: str = "") -> bytes:
    async with connect(url, password=password) as client:
        return bytes((await call(client, "ROLE"))[0])


async def test_the_first_sentinel_that_answers_is_enough(watched: SentinelSet) -> None:
    assert await role(watched.url) == b"master"
    assert await primary_of(watched.url) == (HOST, watched.primary.port)
    watched.sentinels[0].kill()
    watched.sentinels[1].kill()
    assert await role(watched.url) == b"master"
    watched.sentinels[2].kill()
    with pytest.raises(RedisError, match="no sentinel names a primary of 'erni' now") as away:
        await role(watched.url)
    assert trouble_of(away.value) is Trouble.AWAY


async def test_an_unknown_name_is_a_sentence_and_an_exit_code(watched: SentinelSet) -> None:
    url = f"redis+sentinel://{watched.places}/ernie/0"
    with pytest.raises(SentinelError, match="know no primary named 'ernie'") as unknown:
        await role(url)
    assert trouble_of(unknown.value) is Trouble.NO_PRIMARY
    # also while some sentinels are down
    watched.sentinels[0].kill()
    for words in (
        (sys.executable, "-m", "consumers", "vision_analyzer"),
        (ERNI, "status"),
        (ERNI, "dead", "list"),
        (ERNI, "redis-cli", "PING"),
    ):
        answer = await asyncio.to_thread(run, *words, REDIS_URL=url)
        assert answer.returncode == 1, (words, answer.stderr)
        assert "the sentinels know no primary named 'ernie'" in answer.stderr, words
        assert "`sentinel monitor` line" in answer.stderr, words
        assert "Traceback" not in answer.stderr, words


async def test_a_server_in_a_sentinels_place_is_named(watched: SentinelSet) -> None:
    url = f"redis+sentinel://{HOST}:{watched.primary.port}/{NAME}"
    with pytest.raises(SentinelError, match="none of the hosts is a sentinel"):
        await role(url)


async def test_nobody_there_is_an_outage() -> None:
    with pytest.raises(RedisError, match="no sentinel names a primary") as away:
        await role(f"redis+sentinel://{HOST}:{free_port()}/{NAME}")
    assert trouble_of(away.value) is Trouble.AWAY


async def test_a_primary_that_hangs_is_not_named(watched: SentinelSet) -> None:
    """A sentinel sees it down before it knows another one: nobody is sent to it meanwhile."""
    watched.freeze(watched.primary)
    try:
        await asyncio.to_thread(wait_until, lambda: all(map(watched.is_down, watched.sentinels)))
        while True:
            try:
                named = await primary_of(watched.url)
                says = await role(watched.url)
                break
            except RedisConnectionError:
                continue  # the fail-over goes on
        assert named == (HOST, watched.replicas[0].port)
        assert says == b"master"
    finally:
        watched.thaw(watched.primary)


async def test_servers_and_sentinels_have_credentials_of_their_own(tmp_path: Path) -> None:
    users = tmp_path / "users.acl"
    users.write_text("user default on >ge:heim@ ~* &* +@all\nuser worker on >arb#eit ~* &* +@all\n")
    watched = SentinelSet(
        tmp_path / "set",
        options={"aclfile": str(users), "masterauth": "ge:heim@", "requirepass": "ge:heim@"},
        sentinel_lines=(
            f"sentinel auth-pass {NAME} ge:heim@",
            "requirepass wacht",
            "sentinel sentinel-pass wacht",
        ),
    )
    watched.start()
    try:
        own = f"{watched.places}/{NAME}/0?sentinel_password=wacht"
        assert await role(f"redis+sentinel://:ge%3Aheim%40@{own}") == b"master"
        assert await role(f"redis+sentinel://worker:arb%23eit@{own}") == b"master"
        assert await role(f"redis+sentinel://worker@{own}", password="arb#eit") == b"master"
        assert await role(f"redis+sentinel://worker:arb%23eit@{own}&sentinel_username=default") == b"master"
        for url, says in (
            (f"redis+sentinel://worker:falsch@{own}", "invalid username-password pair"),
            (f"redis+sentinel://worker:arb%23eit@{watched.places}/{NAME}", "sentinels do not let us in"),
            (f"redis+sentinel://worker:arb%23eit@{own}falsch", "sentinels do not let us in"),
        ):
            with pytest.raises(RedisError, match=says) as denied:
                await role(url)
            assert trouble_of(denied.value) is Trouble.NO_PERMISSION, url
            assert not any(word in str(denied.value) for word in ("wacht", "arb#eit", "falsch"))
    finally:
        watched.stop()


@pytest.mark.needs("redis-server")  # the bundled server is built without TLS
async def test_sentinels_and_servers_are_reached_over_tls_before_and_after_a_fail_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certify(tmp_path)
    monkeypatch.setattr("sandbox.redis_server._candidates", lambda: [require("redis-server")])
    watched = SentinelSet(
        tmp_path / "set",
        options={
            "requirepass": "geheim",
            "masterauth": "geheim",
            "tls-cert-file": str(tmp_path / "server.pem"),
            "tls-key-file": str(tmp_path / "server.key"),
            "tls-ca-cert-file": str(tmp_path / "ca.pem"),
            "tls-auth-clients": "no",
            # servers and sentinels talk over TLS, too
            "tls-replication": "yes",
        },
        sentinel_lines=(
            f"sentinel auth-pass {NAME} geheim",
            "requirepass wacht",
            "sentinel sentinel-pass wacht",
        ),
    )
    try:
        await asyncio.to_thread(watched.start)
        login, more = "rediss+sentinel://default:geheim@", f"&ssl_ca_certs={tmp_path / 'ca.pem'}"
        url = f"{login}{watched.places}/{NAME}/0?sentinel_password=wacht{more}"
        assert await role(url) == b"master"
        # the sentinels' ports without TLS, and TLS to the servers only
        plain = ",".join(f"{HOST}:{sentinel.port}" for sentinel in watched.sentinels)
        assert await role(f"{login}{plain}/{NAME}?sentinel_password=wacht&sentinel_tls=no{more}") == b"master"
        with pytest.raises(RedisError, match="certificate verify failed"):
            await role(f"{login}{watched.places}/{NAME}?sentinel_password=wacht")
        with pytest.raises(RedisError, match="invalid username-password pair"):
            await role(url.replace("geheim", "falsch"))

        async with connect(url) as client, running(settings_for(url, lease_seconds=15.0)):
            await until(lambda: _published(client, 0))
            await until(lambda: _handed_on(client, 1))
            watched.primary.kill()
            await asyncio.to_thread(watched.wait_for_primary, *watched.replicas)
            await until(lambda: _published(client, 1))
            await until(lambda: _handed_on(client, 2))
    finally:
        watched.stop()


async def _published(client: Redis, number: int) -> bool:
    try:
        await Publisher(client).publish(PhotoSubmitted(source_url=f"store:{number}"), event_id=f"{number}")
    except RedisError:
        return False
    return True


async def _handed_on(client: Redis, number: int) -> bool:
    try:
        return int(await client.xlen(Keys().stream("schema.extracted"))) == number
    except RedisError:
        return False

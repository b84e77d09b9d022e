"""The pipeline page says what `erni status` says, in the same words and with the same remedy."""

from __future__ import annotations

import html
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from console.agent_state import judge
from events import topology
from shared.operations.status import read_status
from shared.retry.call_times import SlowCalls
from tests.console.pipeline import KEYS, beats, dies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from redis import Redis as PlainRedis
    from redis.asyncio import Redis

FULL = (
    "the photo store /var/erni is full: No space left on device (12 MB are free). Make room there; reading"
    " goes on by itself"
)


async def _said(redis: Redis) -> list[str]:
    """What `erni status` says now, without the agents' names."""
    status = await read_status(redis)
    judged = [(agent.agent, judge(agent, 600.0)) for agent in status.agents]
    return [
        sentence.removeprefix(f"{name}: ").replace("`", "")
        for name, one in judged
        for sentence in (*one.problems, *one.notes)
    ]


@pytest.fixture
def stopped() -> Iterator[int]:
    """The id of a process that was started as an agent and is stopped."""
    words = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)", "consumers"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            yield process.pid
        finally:
            process.kill()


async def test_each_sentence_of_status_stands_on_the_page(
    enter: Callable[..., Any], redis: Redis, client: PlainRedis, stopped: int
) -> None:
    beats(client, "vision_analyzer", ago=4, pid=stopped)
    # for as long as the test may take
    beats(client, "photo_fetcher", ago=-600, unwell=FULL)
    slow = SlowCalls(method="PUT", seconds_now=1.4, seconds_usual=0.05)
    beats(client, "sharepoint_uploader", ago=-600, slow_parts={"sharepoint": slow})
    down: dict[str, Any] = {"breakers_open": ["sharepoint"], "breaker_reasons": {"sharepoint": "503"}}
    beats(client, "validation_reporter", ago=-600, **down)
    said = await _said(redis)
    assert len(said) == 5  # and no process reads columns
    page = await (await enter("viewer")).get("/")
    german = await (await enter("viewer", "de")).get("/")
    shown = html.unescape(page.text)
    # a second may have passed between the two looks
    assert [one for one in said if one.split(" (no heartbeat")[0] not in shown] == []
    assert f"kill -CONT {stopped}" in shown
    assert 'w-slow">slow<' in page.html
    assert 'w-frozen">frozen<' in page.html
    assert f'Dienstes">{FULL}</q>' in html.unescape(german.html)
    assert f"Prozess {stopped} ist durch SIGSTOP oder einen Debugger angehalten" in german.text


async def test_a_failing_agent_is_failing_here_too(enter: Callable[..., Any], client: PlainRedis) -> None:
    for agent in topology.AGENTS:
        beats(client, agent, recent="." * 5 + "xxxxx" if agent == "photo_fetcher" else "")
    for _ in range(5):
        dies(client, "photo_fetcher", "schema.extracted", message="the host <b>photos</b> refused us")
    page = await (await enter("viewer")).get("/")
    assert "5 of the last 10 entries died: the host &lt;b&gt;photos&lt;/b&gt; refused us" in page.html
    assert 'w-failing">failing<' in page.html
    # what the command would show is one click away
    assert '<a href="/dead?agent=photo_fetcher">See them, and replay</a>' in page.html
    assert "erni dead list" not in page.text


async def test_a_page_names_no_command_for_what_it_can_do_itself(
    enter: Callable[..., Any], client: PlainRedis
) -> None:
    beats(client, "photo_fetcher")
    client.hset(KEYS.paused, "photo_fetcher", time.time())
    operator, viewer = await enter("operator"), await enter("viewer")
    assert "erni resume" not in (await operator.get("/")).text
    assert "Add one below." in (await operator.get("/webhooks")).text
    assert "An operator can add one." in (await viewer.get("/webhooks")).text
    assert "erni webhook" not in (await operator.get("/webhooks")).text


async def test_dead_letters_of_an_agent_that_works_again_are_left_to_a_person(
    enter: Callable[..., Any], client: PlainRedis
) -> None:
    for agent in topology.AGENTS:
        beats(client, agent)
    dies(client, "photo_fetcher", "schema.extracted")
    page = await (await enter("viewer")).get("/")
    assert 'w-ok">ok<' in page.html
    assert "The agent works. 1 dead letter is left from before: replay or discard it." in page.text
    assert page.text.count("The agent works.") == 1


async def test_a_paused_agent_says_since_when_in_which_zone(
    enter: Callable[..., Any], client: PlainRedis
) -> None:
    for agent in topology.AGENTS:
        beats(client, agent)
    client.hset(KEYS.paused, "photo_fetcher", time.time())
    for language, zones in (("en", ("CET", "CEST")), ("de", ("MEZ", "MESZ"))):
        page = await (await enter("viewer", language)).get("/")
        assert any(f" {zone}{end} " in page.text for zone in zones for end in ".;"), page.text


async def test_a_redis_that_is_nearly_full_is_said_on_the_page(
    enter: Callable[..., Any], client: PlainRedis, monkeypatch: Any
) -> None:
    from console.pages import live
    from shared.operations.memory import Memory

    memory = Memory(used=95_000_000, limit=100_000_000, biggest="the stream photo.fetched takes about 60 MB")

    async def full(*_: object, **__: object) -> Memory:
        return memory

    monkeypatch.setattr(live, "read_memory", full)
    page = await (await enter("viewer")).get("/")
    assert memory.sentence in page.text
    page = await (await enter("viewer", "de")).get("/")
    assert "95.0 von 100.0 MB sind belegt (95 %)" in page.text

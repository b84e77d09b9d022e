"""A real server gives each answer in the list of failures, and what comes of it is what the list says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog

from events.connection import connect
from events.types import PhotoSubmitted, SchemaExtracted
from shared.operations import photos
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.operations.status import read_status
from shared.retry import policy
from shared.retry.breaker import OPEN_AFTER, Breakers
from shared.retry.classify import Kind, sentence_of
from shared.retry.errors import dependency_of
from shared.retry.failures import FAILURES, Failure, page
from tests.shared.delivery.harness import extracted, publisher, running, settings_for, until
from tests.shared.retry import answers
from tests.shared.retry.test_policy import attempts
from tests.shared.sharepoint.emulator import Emulator
from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis.asyncio import Redis

    from shared.delivery.process import AgentProcess
    from tests.shared.retry.answers import Answering

PARTS = frozenset({"sharepoint", "vision"})
"""What the agents that need them stop reading for."""
THEN = {
    Kind.POSTPONE: "postponed",
    Kind.UNHEALTHY: "released",
    Kind.PERMANENT: "dead letter",
}
rows = pytest.mark.parametrize("row", FAILURES, ids=lambda row: f"{row.side}-{row.answer}")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    running = Emulator(tmp_path_factory.mktemp("graph"))
    yield running
    running.stop()


@pytest.fixture
def answering(row: Failure, request: pytest.FixtureRequest, tmp_path: Path) -> Answering:
    """The server that gives the row's answer, and what its agent does with a photo meanwhile."""
    match row.side:
        case "SharePoint":
            return answers.sharepoint(row, request.getfixturevalue("emulator"), tmp_path)
        case "vision":
            return answers.vision(row, request.getfixturevalue("redis_url"))
        case "source":
            return answers.source(row, tmp_path)
        case "Redis":
            return answers.redis(row, request.getfixturevalue("own_redis_server"))
        case "machine":
            return answers.machine(row, tmp_path)


def test_the_page_is_made_of_the_list() -> None:
    assert (ROOT / "docs" / "failures.md").read_text() == page()


def test_no_answer_is_listed_twice() -> None:
    assert len({(one.side, one.answer) for one in FAILURES}) == len(FAILURES)


@rows
async def test_what_becomes_of_a_photo_and_whom_it_concerns(row: Failure, answering: Answering) -> None:
    breakers = Breakers(PARTS)
    async with answering as handle:

        async def once() -> str:
            return " ".join(need.code for need in await handle())

        first, waits = await attempts(once, breakers)
        if isinstance(first, policy.Succeeded):
            # decided in the same attempt, with or without something for a person
            assert waits == []
            assert ("left to a person" if first.value else "looked at") == row.then
            return
        assert ("again" if waits else THEN[first.kind]) == row.then
        assert row.passing == (row.then != "dead letter")
        if row.then in ("again", "dead letter"):
            for _ in range(OPEN_AFTER - 1):
                if not breakers.open_names:
                    await attempts(once, breakers)
        assert _concerned(first, breakers) == row.concerns


def _concerned(first: policy.Failed, breakers: Breakers) -> str:
    """Whom photos in a row that fail alike blame: what their breaker says, and what a postponement names."""
    if first.kind is Kind.UNHEALTHY:
        return "machine"
    names = breakers.open_names
    if first.kind is Kind.POSTPONE and not names and "423" not in sentence_of(first.error):
        names = [str(dependency_of(first.error))]
    if not names:
        return "photo"
    assert len(names) == 1
    return "target" if "/" in names[0] else "part"


@rows
async def test_people_see_it_where_the_list_says(
    row: Failure, answering: Answering, redis: Redis, redis_url: str
) -> None:
    if row.then in ("left to a person", "looked at"):
        return  # no failure: the test above compares what the photo carries on
    failed: list[str] = []
    async with answering as handle:

        async def do(event: PhotoSubmitted) -> SchemaExtracted:
            try:
                await handle()
            except Exception as error:
                failed.append(sentence_of(error)[:40])
                raise
            return extracted(event)

        settings = settings_for(redis_url)
        with policy.without_waiting(), structlog.testing.capture_logs() as lines:
            async with running(settings, do) as (process, _), publisher(settings) as up:
                process.runtime.breakers._stops_reading = PARTS
                await up.publish(
                    PhotoSubmitted(source_url="https://example.org/a.jpg", session_id="s1")  # type: ignore[arg-type]
                )
                await until(lambda: _seen(row, redis_url, process, failed))
    if row.then in ("again", "released"):
        assert any(failed[0] in str(value) for line in lines for value in line.values())


async def _seen(row: Failure, redis_url: str, process: AgentProcess, failed: list[str]) -> bool:
    """Whether the failure's words stand where the list says."""
    client = connect(redis_url)
    try:
        agents = (await read_status(client)).agents
        letters = [one.message async for one in DeadLetters(client).find(DeadFilter())]
        waiting = [part.message for _, part in await photos.postponed_of_session(client, "s1")]
    finally:
        await client.aclose()

    def shown(*places: object) -> bool:
        return any(words in str(place) for words in failed for place in places)

    match row.then:
        case "dead letter":
            return shown(*letters)
        case "postponed":
            return shown(*waiting) and shown(*(agent.depth.next_reason for agent in agents))
        case "released":
            health = process.health()
            return not health.ready and shown(*health.reasons) and shown(*(one.processes for one in agents))
        case _:
            # the reason of an open breaker, of the postponement, or of the letter after the third attempt
            return shown(*(agent.outages for agent in agents), *waiting, *letters)

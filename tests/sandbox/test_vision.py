from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest

from sandbox.vision.service import Ready
from shared.retry.classify import Kind, classify
from shared.retry.errors import HttpStatusError, PermanentError, TransientError
from shared.settings import Settings
from shared.vision.contract import PhotoContext
from shared.vision.local.analyzer import LocalAnalyzer
from shared.vision.openai import OpenAIAnalyzer
from tests.shared.columns.columns import column, library
from tests.shared.vision import drawings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

CONTEXT = PhotoContext(width=4032, height=3024)
CLOCK = drawings.jpeg(drawings.clock())


class Stand:
    """The service as a process, an analyzer that asks it, and one that looks for itself."""

    def __init__(self, ready: Ready, remote: OpenAIAnalyzer, local: LocalAnalyzer) -> None:
        self.ready = ready
        self.remote = remote
        self.local = local

    async def fault(self, **order: Any) -> int:
        """Order a fault; the answer's status."""
        async with aiohttp.ClientSession() as session:
            answer = await session.post(f"{self.ready.admin}/fault", data=msgspec.json.encode(order))
            return answer.status

    async def heal(self) -> Any:
        """End all faults."""
        async with aiohttp.ClientSession() as session:
            return await (await session.delete(f"{self.ready.admin}/fault")).json()


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@asynccontextmanager
async def _running(folder: Path, cache_dir: Path) -> AsyncIterator[Ready]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sandbox.vision",
        "--folder",
        str(folder),
        env={"CACHE_DIR": str(cache_dir)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            yield msgspec.json.decode(await process.stdout.readline(), type=Ready)
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


@pytest.fixture
async def stand(tmp_path: Path, cache_dir: Path, redis: Redis) -> AsyncIterator[Stand]:
    async with _running(tmp_path / "vision", cache_dir) as ready:
        settings = Settings(cache_dir=str(cache_dir), vision_url=ready.url, vision_model=ready.model)
        remote, local = OpenAIAnalyzer(settings, redis), LocalAnalyzer(settings)
        await remote.open()
        await local.open()
        yield Stand(ready, remote, local)
        await remote.close()
        await local.close()


async def test_it_says_what_the_local_analyzer_says_inside_its_agent(stand: Stand) -> None:
    schema = library(*library().columns, column("Titel"), column("Sichtbar", "boolean"))
    for picture in (CLOCK, drawings.jpeg(drawings.nothing())):
        remote = await stand.remote.describe(picture, schema, CONTEXT)
        local = await stand.local.describe(picture, schema, CONTEXT)
        assert remote.fields == local.fields
        assert remote.description == local.description
        assert remote.needs_person == []


async def test_faults_reach_the_agent_as_a_real_services_would(stand: Stand) -> None:
    async def ask() -> object:
        return await stand.remote.describe(CLOCK, library(), CONTEXT)

    assert await stand.fault(kind="429", retry_after=7, times=1) == 201
    with pytest.raises(HttpStatusError, match="429 rate_limit_exceeded") as throttled:
        await ask()
    assert throttled.value.retry_after == 7
    await ask()
    assert await stand.fault(kind="503") == 201
    with pytest.raises(HttpStatusError, match="503 server_error") as away:
        await ask()
    assert away.value.retry_after == 2
    assert await stand.heal() == {"healed": 1}
    await stand.fault(kind="reset", times=1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask()
    await stand.fault(kind="garbage", times=1)
    with pytest.raises(TransientError, match="no chat completion"):
        await ask()
    await stand.fault(kind="slow", delay=0.05, times=1)
    await ask()


@pytest.mark.parametrize(
    "mode",
    [
        *("think", "fence", "fence_prefix", "parts", "reasoning_only", "stream"),
        *("null_usage", "no_usage", "float_usage", "string_conf", "percent_conf", "string_bool_num"),
    ],
)
async def test_an_answer_in_another_form_is_read_at_once(stand: Stand, mode: str) -> None:
    schema = library(*library().columns, column("Sichtbar", "boolean"))
    usual = await stand.remote.describe(CLOCK, schema, CONTEXT)
    assert await stand.fault(kind=mode, times=1) == 201
    answer = await stand.remote.describe(CLOCK, schema, CONTEXT)
    values = {name: field.value for name, field in answer.fields.items()}
    if "conf" in mode:
        # a value that the analyzer doubts is a sure one here
        assert {name for name in usual.fields if name not in values} == set()
    else:
        assert values == {name: field.value for name, field in usual.fields.items()}
    # read without asking for a correction
    async with aiohttp.ClientSession() as session:
        counts = await (await session.get(stand.ready.admin)).json()
    assert counts == {"asked": 2, "answered": 1}


@pytest.mark.parametrize("mode", ["prose", "empty", "choices_empty"])
async def test_a_model_that_says_nothing_leaves_all_to_a_person(stand: Stand, mode: str) -> None:
    await stand.fault(kind=mode, times=2)
    answer = await stand.remote.describe(CLOCK, library(), CONTEXT)
    assert not answer.usable
    assert {
        field.value if isinstance(field.value, str) else field.value[0]
        for field in answer.fields.values()
        if isinstance(field.value, str | list)
    } == {"Prüfen"}
    assert {need.column for need in answer.needs_person} == {"Beschreibung", "Geschoss"}


async def test_a_model_that_repeats_itself_until_its_limit_is_read_as_far_as_it_goes(stand: Stand) -> None:
    usual = await stand.remote.describe(CLOCK, library(), CONTEXT)
    await stand.fault(kind="repeats", times=2)
    answer = await stand.remote.describe(CLOCK, library(), CONTEXT)
    read = {name for name, field in answer.fields.items() if usual.fields.get(name) == field}
    assert read
    assert {need.column for need in answer.needs_person} - {need.column for need in usual.needs_person}
    assert not answer.usable


@pytest.mark.parametrize(
    ("mode", "advice"),
    [
        (
            "mistral422",
            "(max_completion_tokens: Extra inputs are not permitted); set VISION_TOKENS_FIELD=max_tokens",
        ),
        ("vllm400", "set VISION_TOKENS_FIELD=max_tokens"),
        ("openai_tokens", "set VISION_TOKENS_FIELD=max_completion_tokens"),
        ("openai_temp", "set VISION_TEMPERATURE=null"),
        ("azure_filter", "content filter does not take this photo"),
        ("litellm_filter", "content filter does not take this photo"),
        ("ollama_no_vision", "the model takes no pictures: name one that does in VISION_MODEL"),
        ("content_filter_finish", "content filter held the answer back"),
    ],
)
async def test_a_refusal_names_what_to_change(stand: Stand, mode: str, advice: str) -> None:
    await stand.fault(kind=mode, times=1)
    with pytest.raises((HttpStatusError, PermanentError)) as raised:
        await stand.remote.describe(CLOCK, library(), CONTEXT)
    assert advice in str(raised.value)
    # the first ones are not tried again; several alike stop the reading (tests of shared.vision)
    assert classify(raised.value) is Kind.PERMANENT


async def test_a_provider_that_throttles_inside_a_200_throttles(stand: Stand) -> None:
    await stand.fault(kind="openrouter200", times=1)
    with pytest.raises(HttpStatusError, match=r"429 .*Provider returned error") as raised:
        await stand.remote.describe(CLOCK, library(), CONTEXT)
    assert classify(raised.value) is Kind.TRANSIENT


async def test_what_it_cannot_do_or_read_is_told(stand: Stand) -> None:
    for order in ({"kind": "tired"}, {"kind": "stale_etag"}, {}):
        assert await stand.fault(**order) == 400
    text_only = b'[{"role": "user", "content": [{"type": "text", "text": "x"}]}]'
    bodies = (
        b"no JSON",
        b"{}",
        b'{"messages": [], "response_format": {}}',
        b'{"messages": ' + text_only + b', "response_format": {}}',
    )
    async with aiohttp.ClientSession() as session:
        for body in bodies:
            answer = await session.post(f"{stand.ready.url}/chat/completions", data=body)
            assert answer.status == 400
            assert "cannot be read" in (await answer.json())["error"]["message"]


async def test_it_counts_what_it_was_asked_and_what_it_answered(stand: Stand) -> None:
    await stand.fault(kind="503", times=1)
    with pytest.raises(HttpStatusError):
        await stand.remote.describe(CLOCK, library(), CONTEXT)
    await stand.remote.describe(CLOCK, library(), CONTEXT)
    async with aiohttp.ClientSession() as session:
        counts = await (await session.get(stand.ready.admin)).json()
    assert counts == {"asked": 2, "answered": 1}

"""docs/events.md and docs/asyncapi.json say what the code does, and their examples run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from events import asyncapi, codec, identities, topology, types
from events.publisher import DEFAULT_MAX_BACKLOG, DEFAULT_MAX_EVENT_BYTES, Publisher
from events.types import MAX_EXPECTED
from shared.delivery.dead_letter import letter_fields
from tests.events.samples import sample
from tests.shared.delivery.harness import entries
from tests.tools import NODE_MODULES, NODE_REDIS, ROOT, require

if TYPE_CHECKING:
    from redis.asyncio import Redis

PAGE: Final = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
INTAKE: Final = "erni:photo.submitted"


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


async def start(redis_url: str, *words: str) -> asyncio.subprocess.Process:
    """An example as its reader would run it: from the repository, with the address in the environment."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return await asyncio.create_subprocess_exec(
        *words,
        cwd=ROOT,
        env={**os.environ, "PATH": path, "REDIS_URL": redis_url, "PYTHONWARNINGS": "error"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def output_of(process: asyncio.subprocess.Process) -> str:
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def shell(redis_url: str, example: str) -> str:
    return await output_of(await start(redis_url, "sh", "-euc", example))


@pytest.mark.needs("redis-server")  # its package brings redis-cli
async def test_the_shell_examples(redis: Redis, redis_url: str) -> None:
    by_hand, once, ends, session = examples("sh")
    await shell(redis_url, by_hand)
    assert (await shell(redis_url, once)).split()[-1] == "1"
    assert (await shell(redis_url, once)).split()[-1] == "0"
    written = await entries(redis, INTAKE)
    assert len(written) == 2
    for fields in written:
        assert isinstance(codec.decode(topology.INTAKE, "1-1", fields).event, types.PhotoSubmitted)
    for number, name in enumerate(("photo.validated", "photo.failed")):
        end = codec.encode(sample(name), event_id=f"e-{number}", source="test", photo_id=f"p-{number}")
        await redis.execute_command("XADD", f"erni:{name}", "*", *end)  # type: ignore[no-untyped-call]  # redis-py's types
    said = await shell(redis_url, ends)
    assert "p-0" in said
    assert "p-1" in said
    await Publisher(redis).open_session("seewen-13-may")
    assert "2 photos have ended" in await shell(redis_url, session)


async def test_the_python_example_publishes(redis: Redis, redis_url: str) -> None:
    publishing, *_ = examples("python")
    first = await output_of(await start(redis_url, sys.executable, "-c", publishing))
    again = await output_of(await start(redis_url, sys.executable, "-c", publishing))
    assert [line.split()[1] for line in first.splitlines()] == ["True", "True"]
    assert [line.split()[1] for line in again.splitlines()] == ["False", "False"]
    assert await redis.xlen(INTAKE) == 2
    assert await redis.hget("erni:session:seewen-13-may", "expected") == b"2"


async def test_the_python_example_reads_what_was_validated(redis: Redis, redis_url: str) -> None:
    _, reading, *_ = examples("python")
    event = sample("photo.validated")
    fields = codec.encode(event, event_id="e-1", source="test", photo_id="p-1")
    for _ in range(2):
        await redis.execute_command("XADD", "erni:photo.validated", "*", *fields)  # type: ignore[no-untyped-call]  # redis-py's types
    process = await start(redis_url, sys.executable, "-c", reading)
    assert process.stdout is not None
    lines = [(await process.stdout.readline()).decode() for _ in range(2)]
    assert lines == ["p-1 needs_person https://sharepoint.example.org/7\n"] * 2
    # its acknowledgement comes right after the line
    async with asyncio.timeout(10):
        while (await redis.xpending("erni:photo.validated", "camera-app"))["pending"]:  # noqa: ASYNC110 - no event here
            await asyncio.sleep(0.01)
    process.terminate()
    await process.communicate()


@pytest.mark.parametrize("language", ["python", pytest.param("js", marks=pytest.mark.needs(NODE_REDIS))])
async def test_the_listener_learns_both_ends_and_goes_on_where_it_was(
    redis: Redis, redis_url: str, language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSITIONS", str(tmp_path / "positions.json"))
    listener = examples(language)[-1]
    words = (sys.executable, "-c", listener) if language == "python" else node(listener, tmp_path)
    validated = codec.encode(sample("photo.validated"), event_id="e-1", source="test", photo_id="p-1")
    failed = codec.encode(sample("photo.failed"), event_id="e-2", source="test", photo_id="p-1")
    ends = (
        ("erni:photo.validated", validated, "p-1 needs_person https://sharepoint.example.org/7\n"),
        ("erni:photo.failed", failed, "p-1 failed: photos.example.org answered 404: there is no such file\n"),
    )
    for stream, fields, line in ends:
        # a new process each time, which must not say the first end again
        await redis.execute_command("XADD", stream, "*", *fields)  # type: ignore[no-untyped-call]  # redis-py's types
        process = await start(redis_url, *words)
        assert process.stdout is not None
        said = (await process.stdout.readline()).decode()
        if not said and process.stderr is not None:
            said = (await process.stderr.read()).decode()
        assert said == line
        async with asyncio.timeout(10):
            while (await redis.xinfo_stream(stream))["last-generated-id"].decode() not in kept(tmp_path):  # noqa: ASYNC110 - no event here
                await asyncio.sleep(0.01)
        process.terminate()
        await process.communicate()


def kept(folder: Path) -> str:
    """What the listener remembers."""
    path = folder / "positions.json"
    return path.read_text() if path.exists() else ""


def node(listener: str, folder: Path) -> tuple[str, ...]:
    """The words that run an example."""
    (folder / "node_modules").symlink_to(NODE_MODULES)
    (folder / "listen.mjs").write_text(listener)
    return str(require(NODE_REDIS)), str(folder / "listen.mjs")


def test_every_event_type_and_field_is_on_the_page() -> None:
    carried: set[str] = set()
    for name, struct in topology.TYPES.items():
        fields = {field.name for field in msgspec.structs.fields(struct)}
        if name == topology.INTAKE:
            rows = re.findall(
                r"^\| `(\w+)` \|", PAGE.split("`photo.submitted`:")[1].split("**Changes")[0], re.MULTILINE
            )
            assert set(rows) == fields
            carried = fields
            continue
        [row] = re.findall(rf"^\| `{re.escape(name)}` \|(.*)\|$", PAGE, re.MULTILINE)
        added = fields if name.startswith("session.") else fields - carried
        assert {field for field in added if f"`{field}`" not in row} == set(), name
        carried |= fields


def test_every_attribute_is_on_the_page() -> None:
    wire = codec.encode(
        sample("photo.fetched"),
        event_id="e",
        source="s",
        photo_id="p",
        session_id="s",
        traceparent="00",
        tracestate="a=b",
        steps=b"[]",
    )
    names = {str(name) for name in wire[::2]}
    assert {name for name in names if f"`{name}`" not in PAGE} == set()
    assert names - {"data"} <= asyncapi.document()["components"]["schemas"]["Attributes"]["properties"].keys()


def test_the_limits_on_the_page_are_the_codes() -> None:
    limits = PAGE.split("## Limits")[1].split("##")[0]
    for number in (
        DEFAULT_MAX_EVENT_BYTES,
        codec.MAX_ENTRY_BYTES,
        codec.MAX_FIELDS,
        DEFAULT_MAX_BACKLOG,
        MAX_EXPECTED,
    ):
        assert re.search(rf"\b{number}\b", limits), number
    for word in identities.RESERVED_SESSIONS:
        assert f"`{word}`" in limits


def test_the_committed_asyncapi_document_is_current() -> None:
    committed = (ROOT / "docs" / "asyncapi.json").read_text(encoding="utf-8")
    assert committed == asyncapi.text(), "run: python -m events.asyncapi > docs/asyncapi.json"


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi.document()
    references = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))
    assert references
    for reference in references:
        at: Any = document
        for part in reference.split("/"):
            at = at[part]


def test_the_asyncapi_document_describes_fields_in_the_words_of_the_source() -> None:
    schemas = asyncapi.document()["components"]["schemas"]
    assert "Microsoft" not in schemas["PhotoFetched"]["properties"]["size"]["description"]
    assert schemas["PhotoFetched"]["properties"]["size"]["description"] == "Bytes."
    assert schemas["PhotoSubmitted"]["required"] == ["source_url"]


def test_a_dead_letters_fields_are_in_the_asyncapi_document() -> None:
    written = letter_fields(
        agent="photo_fetcher",
        stream="schema.extracted",
        entry_id="1-1",
        consumer="c",
        reason="permanent",
        error_type="E",
        message="m",
        deliveries=1,
        photo_id="p",
        session_id="s",
        file_name="f",
        traceparent="t",
        answer="a",
        cause="file",
        replays=0,
    )
    documented = asyncapi.document()["components"]["schemas"]["DeadLetter"]["properties"].keys()
    assert {str(name) for name in written[::2]} | {"raw"} == set(documented)

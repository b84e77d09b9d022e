"""The lines that docs/logging.md shows have the fields that real deliveries log."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec
from PIL import Image

from tests.project import pages
from tests.shared.delivery.harness import LIBRARY
from tests.tools import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

PAGE: Final = pages.page("logging.md")
TRACE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_deliveries_log_the_fields_of_the_examples(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    Image.new("RGB", (32, 24)).save(tmp_path / "good.jpg")
    (tmp_path / "empty.jpg").touch()
    for name in ("good", "empty"):
        data = {
            "photo_id": f"p-{name}",
            "session_id": "s-1",
            "source_url": (tmp_path / f"{name}.jpg").as_uri(),
            "library": msgspec.to_builtins(LIBRARY),
            "schema_digest": "d" * 64,
            "schema_ref": "store:schemas/d.json",
        }
        fields = {"data": json.dumps(data), "traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}
        await redis.xadd("erni:schema.extracted", fields)  # type: ignore[arg-type]  # redis-py's dict is invariant

    lines = {line["outcome"]: line for line in _deliveries(tmp_path, redis_url, 2)}

    examples = {
        line["outcome"]: line for line in map(json.loads, re.findall(r"^\{.*\}$", PAGE, re.MULTILINE))
    }
    assert lines.keys() == examples.keys() == {"done", "dead"}
    for outcome, example in examples.items():
        line = lines[outcome]
        assert list(line) == list(example)
        assert [type(value) for value in line.values()] == [type(value) for value in example.values()]
        assert {len(line[name]) - len(example[name]) for name in ("timestamp", "trace_id", "span_id")} == {0}
        assert line["trace_id"] == TRACE_ID
        assert (line["event"], line["level"]) == (example["event"], example["level"])


def _deliveries(folder: Path, redis_url: str, number: int) -> list[dict[str, Any]]:
    """The lines about deliveries that an agent of its own writes about the first few."""
    settings = {
        "REDIS_URL": redis_url,
        "PHOTO_STORE_URL": str(folder / "store"),
        "SOURCE_ROOTS": str(folder),
        "METRICS_PORT": "0",
        "ENABLE_TRACING": "0",
    }
    found: list[dict[str, Any]] = []
    with subprocess.Popen(
        [sys.executable, "-m", "consumers", "photo_fetcher"],
        env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        assert agent.stderr is not None
        for text in agent.stderr:
            line = json.loads(text)
            if line["event"] == "delivery":
                found.append(line)
            if len(found) == number:
                break
        agent.terminate()
        agent.communicate(timeout=30)
    assert agent.returncode == 0
    return found


def test_every_field_of_the_examples_is_explained() -> None:
    explained = set(re.findall(r"`([a-z_]+)`", " ".join(row[0] for row in _table())))
    shown = {name for text in re.findall(r"^\{.*\}$", PAGE, re.MULTILINE) for name in json.loads(text)}
    assert explained == shown


def _table() -> list[list[str]]:
    lines = [line for line in PAGE.splitlines() if line.startswith("| `")]
    return [line.split("|")[1:-1] for line in lines]

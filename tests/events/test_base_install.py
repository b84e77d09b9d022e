"""Publishing needs the base install only: redis, msgspec and the OpenTelemetry API."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.tools import ROOT

if TYPE_CHECKING:
    from redis.asyncio import Redis

# Everything but the standard library, the three packages and `events` is as if it were not installed. The
# OpenTelemetry API shares its top-level name with the SDK and the exporters.
_FORBID: Final = """
import sys

ALLOWED = {"events", "redis", "msgspec", "typing_extensions", "importlib_metadata", "zipp"}
API = {"attributes", "baggage", "context", "environment_variables", "propagate", "propagators", "trace",
       "util", "version", "metrics", "_logs", "_events"}

class Forbid:
    def find_spec(self, name, path=None, target=None):
        top, _, rest = name.partition(".")
        if top in ALLOWED or top in sys.stdlib_module_names:
            return None
        if top == "opentelemetry" and (not rest or rest.split(".")[0] in API):
            return None
        raise ModuleNotFoundError(f"No module named {name!r} (not in the base install)", name=name)

sys.meta_path.insert(0, Forbid())
"""
_PUBLISH: Final = """
import asyncio, sys
from events.connection import connect
from events.publisher import Publisher, parse_submission

async def main(url):
    async with connect(url) as redis:
        publisher = Publisher(redis, source="urn:test")
        await publisher.open_session("s1", expected=1)
        event = parse_submission('{"source_url": "https://example.org/a.jpg", "session_id": "s1"}')
        sent = [await publisher.publish(event, event_id="e-1") for _ in range(2)]
        print([published.fresh for published in sent])

asyncio.run(main(sys.argv[1]))
foreign = {name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names) - ALLOWED
print(sorted(name for name in foreign if not name.startswith(("_", "opentelemetry"))))
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -S -E: no .pth file, which could import before the hook; the packages by path
    paths = [path for path in sys.path if path.endswith("site-packages")]
    start = f"import sys; sys.path[:0] = {[str(ROOT), *paths]!r}\n"
    return subprocess.run(
        [sys.executable, "-S", "-E", "-c", start + _FORBID + code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_an_upstream_publishes_with_the_base_install_alone(redis: Redis, redis_url: str) -> None:
    done = python(_PUBLISH, redis_url)
    assert done.stdout.splitlines() == ["[True, False]", "[]"], done.stderr
    assert await redis.xlen("erni:photo.submitted") == 1


def test_the_hook_forbids_what_it_should() -> None:
    for name in ("structlog", "hiredis", "opentelemetry.sdk", "shared.settings"):
        done = python(f"import {name}")
        assert "not in the base install" in done.stderr


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["status"], "console"),
        (["publish", "."], "console"),
        (["doctor"], "console"),
        (["demo"], "local"),
        (["up"], "local"),
    ],
)
def test_a_command_that_needs_an_extra_names_it_in_a_sentence(words: list[str], extra: str) -> None:
    done = python(
        "ALLOWED |= {'console', 'consumers', 'sandbox', 'shared'}\n"
        f"sys.argv = ['erni', *{words!r}]\nfrom console.main import run\nrun()"
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"Install it with: pip install 'erni-foto-agency[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_needs_no_extra() -> None:
    done = python(
        "ALLOWED |= {'console', 'consumers', 'sandbox', 'shared'}\n"
        "sys.argv = ['erni', '--help']\nfrom console.main import run\nrun()"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "publish" in done.stdout

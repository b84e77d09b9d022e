"""Schemathesis sends what docs/openapi.json allows, and what it does not: the document has each answer.

With SCHEMATHESIS_SECONDS it looks longer than a test may take.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from tests.console.gateway.conftest import DOCUMENT, event, taken_in
from tests.tools import SCHEMATHESIS, require

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from redis.asyncio import Redis

    from shared.operations.access_keys import Role
    from shared.settings import Settings
    from tests.console.gateway.conftest import Client

SECONDS: Final = int(os.environ.get("SCHEMATHESIS_SECONDS", "12"))
_MISTAKE_OF_PYTHON: Final = "AST constructor recursion depth mismatch"
"""Python 3.11 raises it now and then where two threads parse source code at the same time, as this tool does:
https://github.com/python/cpython/issues/106905"""
_MOST: Final = 3
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)


@pytest.mark.slow
@pytest.mark.needs(SCHEMATHESIS)
@pytest.mark.parametrize("role", ["publisher", "viewer", "operator"])
async def test_no_request_gets_a_mistake_of_the_server_or_an_answer_that_is_not_documented(
    served: Callable[..., AbstractAsyncContextManager[Client]],
    settings: Settings,
    redis: Redis,
    tmp_path: Path,
    role: Role,
) -> None:
    endless = msgspec.structs.replace(settings, http_rate_per_minute=0)
    async with served(endless, role) as client:
        if role == "publisher":
            # the examples of the document are there
            data = {"source_url": "store:a", "session_id": "seewen-12-may"}
            await client.publish(event(subject="p-1", data=data))
            await taken_in(redis, "seewen-12-may")
        for _ in range(_MOST):
            code, said = await _looked_at(client, tmp_path)
            if _MISTAKE_OF_PYTHON not in said:
                break
    assert code == 0, said


async def _looked_at(client: Client, folder: Path) -> tuple[int | None, str]:
    """Run Schemathesis; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        require(SCHEMATHESIS),
        *("run", f"{client.url}/v1/openapi.json", "--max-time", str(SECONDS), "--workers", "2"),
        *("--header", f"Authorization: Bearer {client.key}", "--checks", ",".join(CHECKS)),
        # a request that is right is answered for ever
        *("--exclude-operation-id", DOCUMENT["paths"]["/v1/stream"]["get"]["operationId"]),
        *("--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--no-color"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "NO_PROXY": "*"},
    )
    async with asyncio.timeout(SECONDS + 100):
        said, _ = await process.communicate()
    return process.returncode, said.decode()

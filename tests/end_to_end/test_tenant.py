"""Connecting a tenant, step by step: `erni doctor` says at each what is missing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from shared.local.graph.process import RunningGraph, start_graph
from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[RunningGraph]:
    graph = await start_graph(tmp_path / "graph", args=("--tenant-mode", "--strict"))
    try:
        yield graph
    finally:
        await graph.stop()


async def _doctor(graph: RunningGraph, folder: Path, **changed: str) -> list[tuple[str, str]]:
    """State and sentence of each finding about SharePoint."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "console.main", "doctor", "--json"),
        cwd=folder,
        env={
            **os.environ,
            **graph.settings(),
            "PYTHONPATH": str(ROOT),
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "ENABLE_TRACING": "0",
            **changed,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    checks: list[dict[str, str]] = json.loads(out)["checks"]
    return [(check["state"], check["sentence"]) for check in checks if check["part"] == "sharepoint"]


async def _order(graph: RunningGraph, path: str, **body: Any) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{graph.admin}/{path}", json=body) as answer:
        assert answer.status == 201


async def test_each_step_of_connecting_a_tenant_is_checked(tenant: RunningGraph, tmp_path: Path) -> None:
    # the daily troubles of the strict mode may hit any step: those are told as what they are
    async def look(**changed: str) -> list[tuple[str, str]]:
        for _ in range(5):
            found = await _doctor(tenant, tmp_path, **changed)
            if not any(trouble in found[-1][1] for trouble in ("answered 429", "answered 503")):
                return found
        raise AssertionError(found)

    ((state, said),) = await look(SHAREPOINT_SITE="")
    assert (state, said) == ("failed", "no site is named: set SHAREPOINT_SITE to host:/sites/Name")

    ((state, said),) = await look(AZURE_CLIENT_SECRET="")
    assert "set AZURE_CLIENT_SECRET" in said

    ((state, said),) = await look(AZURE_CLIENT_SECRET="another")
    assert "invalid_client" in said
    assert "check tenant, client id and secret" in said

    ((state, said),) = await look(AZURE_CREDENTIAL="certificate", AZURE_CERTIFICATE_PATH="/nowhere.pem")
    assert "the credential cannot be used" in said
    assert "/nowhere.pem" in said

    signed_in, (state, said) = await look()
    assert signed_in[0] == "ok"
    assert state == "failed"
    assert "grant the app write access to this site (Sites.Selected, role write)" in said

    await _order(tenant, "grant", roles=["read"])
    *before, (state, said) = await look()
    assert {state for state, _ in before} == {"ok"}
    assert said.startswith("beginning an upload, to see whether that is allowed")
    assert state == "failed"

    await _order(tenant, "grant", roles=["write"])
    found = await look()
    assert {state for state, _ in found} == {"ok"}
    assert found[-1][1] == "the app may write: an upload was begun and dropped again"
    sentences = " ".join(sentence for _, sentence in found)
    assert "left alone: Bildlegende (read-only), Projektakte (lookup)" in sentences
    assert "perhaps not writable: Ähnliche Objekte" in sentences
    assert not list((tmp_path / "graph" / "library" / "Referenzfotos").iterdir())

    _, _, (state, said) = await look(SHAREPOINT_LIBRARY="Gibtsnicht")
    assert "it has: Dokumente, Referenzfotos" in said


async def test_throttling_is_told_with_the_wait(tenant: RunningGraph, tmp_path: Path) -> None:
    await _order(tenant, "fault", kind="429", retry_after=30)
    _, (state, said) = await _doctor(tenant, tmp_path)
    assert state == "failed"
    assert said.endswith("try again in 30 s")

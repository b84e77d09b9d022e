"""Connecting a tenant, step by step: `erni doctor` says at each what is missing."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from sandbox.sharepoint.process import RunningGraph, start_graph
from tests.shared.sharepoint.certificates import self_signed
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


async def _grant(graph: RunningGraph, role: str) -> None:
    """What the administrator does, as docs/sharepoint.md says it."""
    url = f"{graph.url}/sites/{graph.ready.site}:/permissions"
    identity = {"application": {"id": graph.ready.client_id, "displayName": "Erni Foto Agency"}}
    body = {"roles": [role], "grantedToIdentities": [identity]}
    headers = {"Authorization": f"Bearer {graph.ready.admin_token}"}
    async with aiohttp.ClientSession() as session:
        for _ in range(5):  # the daily troubles of the strict mode
            async with session.post(url, json=body, headers=headers) as answer:
                if answer.status not in (429, 503):
                    assert answer.status == 201
                    return
    raise AssertionError(answer.status)


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
    assert "set the secret's value, not its id" in said

    ((state, said),) = await look(AZURE_CLIENT_ID="11111111-1111-1111-1111-111111111111")
    assert "AZURE_CLIENT_ID is no app of this tenant" in said

    ((state, said),) = await look(AZURE_TENANT_ID="another")
    assert "AZURE_TENANT_ID names no tenant of this cloud" in said

    ((state, said),) = await look(AZURE_CREDENTIAL="certificate", AZURE_CERTIFICATE_PATH="/nowhere.pem")
    assert "the certificate /nowhere.pem cannot be read" in said

    _, (state, said) = await look(SHAREPOINT_SITE="/sites/Bau")
    assert "write it as contoso.sharepoint.com:/sites/Bau" in said

    _, (state, said) = await look(SHAREPOINT_SITE="localhost:/sites/Bua")  # mistyped
    assert "there is no site 'localhost:/sites/Bua', or the app may not see it" in said

    signed_in, (state, said) = await look()
    assert signed_in[0] == "ok"
    assert state == "failed"
    assert "check the address, then that the app has been granted this site (Sites.Selected)" in said

    await _grant(tenant, "read")
    *before, (state, said) = await look()
    assert {state for state, _ in before} == {"ok"}
    assert said.startswith("beginning an upload, to see whether that is allowed")
    assert state == "failed"

    await _grant(tenant, "write")
    found = await look()
    assert {state for state, _ in found} == {"ok"}
    assert found[-1][1] == "the app may write: an upload was begun and dropped again"
    sentences = " ".join(sentence for _, sentence in found)
    assert "left alone: Bildlegende (read-only), Projektakte (lookup)" in sentences
    assert "perhaps not writable: Ähnliche Objekte" in sentences
    assert not list((tmp_path / "graph" / "library" / "Referenzfotos").iterdir())

    _, _, (state, said) = await look(SHAREPOINT_LIBRARY="Gibtsnicht")
    assert "it has: Dokumente, Eingang, Referenzfotos" in said


async def test_throttling_is_told_with_the_wait(tenant: RunningGraph, tmp_path: Path) -> None:
    order = {"kind": "429", "retry_after": 30}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{tenant.admin}/fault", json=order) as answer,
    ):
        assert answer.status == 201
    _, (state, said) = await _doctor(tenant, tmp_path)
    assert state == "failed"
    assert said.endswith("try again in 30 s")


async def test_a_certificate_and_a_workload_identity_connect_it_too(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path / "tls.pem")
    payload = base64.urlsafe_b64encode(json.dumps({"exp": int(time.time()) + 600}).encode()).decode()
    federated = tmp_path / "federated-token"
    federated.write_text(f"e30.{payload.rstrip('=')}.signature")
    graph = await start_graph(tmp_path / "graph", args=("--tls-cert", str(certificate)))
    try:
        for changed in (
            {"AZURE_CREDENTIAL": "certificate", "AZURE_CERTIFICATE_PATH": str(certificate)},
            {
                "AZURE_CREDENTIAL": "workload",
                "AZURE_AUTHORITY": "",
                "AZURE_AUTHORITY_HOST": graph.authority,
                "AZURE_FEDERATED_TOKEN_FILE": str(federated),
            },
        ):
            found = await _doctor(graph, tmp_path, SSL_CERT_FILE=str(certificate), **changed)
            assert {state for state, _ in found} == {"ok"}, found
            assert found[0][1] == f"signed in at {graph.authority}"
    finally:
        await graph.stop()


async def test_where_there_is_no_managed_identity_that_is_told(tenant: RunningGraph, tmp_path: Path) -> None:
    ((state, said),) = await _doctor(
        tenant,
        tmp_path,
        AZURE_CREDENTIAL="managed",
        IDENTITY_ENDPOINT="http://127.0.0.1:1/msi/token",
        IDENTITY_HEADER="x",
    )
    assert state == "failed"
    assert "no managed identity answers on this machine" in said
    assert "works on an Azure machine or service that has an identity" in said

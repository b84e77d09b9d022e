from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shared.retry.errors import PermanentError, TransientError
from shared.settings import Settings
from shared.sharepoint.client import GraphClient
from shared.sharepoint.token import AzureIdentity, Grant, Tokens, scope
from tests.shared.sharepoint.stub import Reply

if TYPE_CHECKING:
    from pathlib import Path

    from tests.shared.sharepoint.stub import Stub

TOKEN = "/tenant/oauth2/v2.0/token"


class Source:
    """Grants, numbered; each waits for its gate if there is one."""

    def __init__(self, seconds: float = 3600) -> None:
        self.fetched = 0
        self.closed = False
        self.seconds = seconds
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    async def fetch(self) -> Grant:
        self.fetched += 1
        number = self.fetched
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Grant(access_token=f"token-{number}", expires_in=self.seconds)

    async def close(self) -> None:
        self.closed = True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_many_calls_at_once_fetch_one_token() -> None:
    source = Source()
    tokens = Tokens(source)
    assert set(await asyncio.gather(*(tokens.get() for _ in range(20)))) == {"token-1"}
    assert await tokens.get() == "token-1"
    assert source.fetched == 1


async def test_a_caller_that_gives_up_leaves_the_token_to_the_others() -> None:
    source = Source()
    source.gate = asyncio.Event()
    tokens = Tokens(source)
    impatient, patient = asyncio.create_task(tokens.get()), asyncio.create_task(tokens.get())
    await asyncio.sleep(0)
    impatient.cancel()
    source.gate.set()
    assert await patient == "token-1"
    assert source.fetched == 1


async def test_it_is_renewed_ahead_while_the_old_one_serves() -> None:
    source, clock = Source(), Clock()
    tokens = Tokens(source, clock=clock)
    await tokens.get()
    clock.now = 3600 - 200
    source.gate = asyncio.Event()
    assert await tokens.get() == "token-1"  # does not wait for the renewal it has started
    source.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert await tokens.get() == "token-2"
    assert source.fetched == 2


async def test_a_renewal_that_fails_ahead_is_tried_again_and_troubles_nobody() -> None:
    source, clock = Source(), Clock()
    tokens = Tokens(source, clock=clock)
    await tokens.get()
    clock.now = 3600 - 200
    source.error = TransientError("the sign-in endpoint is away")
    for _ in range(3):
        assert await tokens.get() == "token-1"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert source.fetched > 2
    clock.now = 3600 - 10  # too late for the old one
    with pytest.raises(TransientError):
        await tokens.get()


async def test_a_refused_token_is_not_used_again() -> None:
    source = Source()
    tokens = Tokens(source)
    first = await tokens.get()
    tokens.refuse(first)
    assert await tokens.get() == "token-2"
    tokens.refuse(first)  # told late, by a call that was under way: the new one stays
    assert await tokens.get() == "token-2"


async def test_closing_stops_a_fetch_under_way() -> None:
    source = Source()
    source.gate = asyncio.Event()
    tokens = Tokens(source)
    waiting = asyncio.create_task(tokens.get())
    await asyncio.sleep(0)
    await tokens.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert source.closed


async def test_the_client_secret_flow_sends_what_the_endpoint_wants(graph: Stub, client: GraphClient) -> None:
    graph.on("GET", "/v1.0/sites/root", Reply(body={}))
    await client.send("GET", "/sites/root", doing="looking")
    [asked] = graph.calls("POST", TOKEN)
    assert parse_qs(asked.body.decode()) == {
        "client_id": ["app"],
        "client_secret": ["s3cret&="],
        "scope": ["https://graph.microsoft.com/.default"],
        "grant_type": ["client_credentials"],
    }


@pytest.mark.parametrize("status", [400, 401])
async def test_refused_credentials_let_the_photos_wait_and_name_the_cause(
    graph: Stub, client: GraphClient, status: int
) -> None:
    graph.on(
        "POST",
        TOKEN,
        Reply(
            status,
            {
                "error": "invalid_client",
                "error_description": "AADSTS7000215: Invalid client secret provided.",
                "error_codes": [7000215],
                "trace_id": "t",
                "correlation_id": "c",
            },
        ),
    )
    with pytest.raises(TransientError, match=r"AADSTS7000215.*check tenant, client id and secret") as caught:
        await client.send("GET", "/sites/root", doing="looking")
    assert "s3cret" not in str(caught.value)
    assert graph.calls("GET") == []


async def test_an_answer_without_a_token_is_transient(graph: Stub, client: GraphClient) -> None:
    graph.on("POST", TOKEN, Reply(body=b"<html>a proxy's page</html>"))
    with pytest.raises(TransientError, match="holds no token"):
        await client.send("GET", "/sites/root", doing="looking")


async def test_a_network_error_of_the_sign_in_passes_through(graph: Stub, client: GraphClient) -> None:
    graph.on("POST", TOKEN, Reply(drop=True))
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.send("GET", "/sites/root", doing="looking")


async def test_missing_credentials_are_named() -> None:
    client = GraphClient(Settings(azure_client_id="app"))
    with pytest.raises(PermanentError, match="set AZURE_TENANT_ID, AZURE_CLIENT_SECRET"):
        await client.open()


def test_the_scope_is_that_of_the_cloud_and_of_the_public_one_for_a_local_graph() -> None:
    assert (
        scope(Settings(graph_url="https://graph.microsoft.us/v1.0")) == "https://graph.microsoft.us/.default"
    )
    assert scope(Settings(graph_url="http://127.0.0.1:1/v1.0")) == "https://graph.microsoft.com/.default"


def _certificate(folder: Path, subject: str) -> Path:
    """A self-signed certificate with its key, in one PEM file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{subject}.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


async def test_a_certificate_signs_in_through_azure_identity(tmp_path: Path) -> None:
    authority, app = _certificate(tmp_path, "localhost"), _certificate(tmp_path, "app")
    forms: list[dict[str, str]] = []

    async def token(request: web.Request) -> web.Response:
        forms.append({key: str(value) for key, value in (await request.post()).items()})
        if len(forms) == 2:
            return web.json_response(
                {"error": "invalid_client", "error_description": "AADSTS700027: bad key.\r\nTrace ID: x"},
                status=401,
            )
        return web.json_response({"token_type": "Bearer", "expires_in": 3599, "access_token": "t"})

    server = web.Application()
    server.router.add_post("/tenant/oauth2/v2.0/token", token)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority)
    test_server = TestServer(server, scheme="https", host="localhost")
    await test_server.start_server(ssl=context)
    settings = Settings(
        azure_credential="certificate",
        azure_tenant_id="tenant",
        azure_client_id="app",
        azure_certificate_path=str(app),
        azure_authority=f"https://localhost:{test_server.port}",
    )
    options = {"connection_verify": str(authority), "disable_instance_discovery": True}
    grants = AzureIdentity(settings, **options)
    refused = AzureIdentity(settings, **options)
    try:
        grant = await grants.fetch()
        assert (grant.access_token, forms[0]["client_id"]) == ("t", "app")
        assert grant.expires_in == pytest.approx(3599, abs=5)
        assert "client_assertion" in forms[0]
        with pytest.raises(TransientError, match="AADSTS700027: bad key"):
            await refused.fetch()
    finally:
        await grants.close()
        await refused.close()
        await test_server.close()


def test_without_the_extra_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(PermanentError, match=r"install erni-foto-agency\[azure\]"):
        AzureIdentity(Settings(azure_credential="managed"))


@pytest.mark.parametrize("kind", ["workload", "managed"])
async def test_the_platforms_identities_need_no_settings(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_TENANT_ID", "tenant")
    monkeypatch.setenv("AZURE_CLIENT_ID", "app")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    client = GraphClient(msgspec.structs.replace(Settings(), azure_credential=kind))
    await client.open()
    await client.close()

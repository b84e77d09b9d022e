"""Signing in through azure-identity: at the emulator's token endpoint behind TLS, and as an Azure machine."""

from __future__ import annotations

import base64
import shutil
import ssl
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shared.retry.errors import PermanentError, TransientError
from shared.settings import Settings
from shared.sharepoint.auth.azure_identity import AzureIdentity
from shared.sharepoint.auth.contract import authority
from shared.sharepoint.auth.tokens import Tokens
from shared.sharepoint.client import GraphClient
from shared.sharepoint.sites import find_site
from tests.shared.sharepoint.certificates import self_signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.shared.sharepoint.emulator import Emulator

HEADER = "what-the-platform-gave-this-process"
KINDS = ["certificate", "workload", "managed", "machine"]
"""``managed`` is that of App Service and Container Apps, ``machine`` that of a virtual machine."""


@dataclass
class Platform:
    """Where tokens come from, in front of the emulator, and what it was asked."""

    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    refusal: tuple[int, object] | None = None
    """What it answers from now on."""


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key: the server's and the app's."""
    return self_signed(tmp_path_factory.mktemp("tls") / "tls.pem")


@pytest.fixture
async def platform(emulator: Emulator, pem: Path) -> AsyncIterator[Platform]:
    """Entra ID over TLS and the endpoint of managed identities: both hand out the emulator's tokens."""
    platform = Platform()
    token_url = f"{emulator.ready.authority}/{emulator.ready.tenant_id}/oauth2/v2.0/token"

    async def forward(form: dict[str, str]) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.post(token_url, data=form) as answer:
            document: dict[str, Any] = await answer.json()
            return document

    def refused() -> web.Response:
        assert platform.refusal is not None
        status, body = platform.refusal
        if isinstance(body, str):
            return web.Response(text=body, status=status)
        return web.json_response(body, status=status)

    async def entra(request: web.Request) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        platform.asked.append(form)
        return refused() if platform.refusal else web.json_response(await forward(form))

    async def managed(request: web.Request) -> web.Response:
        platform.asked.append(dict(request.query))
        proof = (request.headers.get("X-IDENTITY-HEADER"), request.headers.get("Metadata"))
        assert proof in ((HEADER, None), (None, "true"))
        if platform.refusal:
            return refused()
        ready = emulator.ready
        form = {"client_id": ready.client_id, "client_secret": ready.client_secret}
        form |= {"scope": f"{request.query['resource']}/.default", "grant_type": "client_credentials"}
        token = await forward(form)
        return web.json_response(
            {
                "access_token": token["access_token"],
                "expires_in": str(token["expires_in"]),
                "expires_on": str(int(time.time()) + token["expires_in"]),
                "resource": request.query["resource"],
                "token_type": "Bearer",
            }
        )

    app = web.Application()
    app.router.add_post("/{tenant}/oauth2/v2.0/token", entra)
    app.router.add_get("/msi/token", managed)
    app.router.add_get("/metadata/identity/oauth2/token", managed)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem)
    server = TestServer(app, scheme="https", host="localhost")
    await server.start_server(ssl=tls)
    platform.url = f"https://localhost:{server.port}"
    yield platform
    await server.close()


def _federated(folder: Path) -> Path:
    """The token of a service account, as the platform puts it into a file."""
    payload = base64.urlsafe_b64encode(msgspec.json.encode({"exp": int(time.time()) + 600})).decode()
    path = folder / "federated-token"
    path.write_text(f"e30.{payload.rstrip('=')}.geheim")
    return path


@pytest.fixture
def settings(
    platform: Platform, emulator: Emulator, pem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Settings]:
    """Settings by kind of credential. What the platform sets for a process is set."""
    ready = emulator.ready
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", platform.url)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(_federated(tmp_path)))
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{platform.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    by_kind = {
        "certificate": Settings(
            azure_credential="certificate",
            azure_certificate_path=str(pem),
            azure_authority=platform.url,
        ),
        "workload": Settings(azure_credential="workload"),
        "managed": Settings(azure_credential="managed"),
        "machine": Settings(azure_credential="managed"),
    }
    return {
        kind: msgspec.structs.replace(
            each, azure_tenant_id=ready.tenant_id, azure_client_id=ready.client_id, graph_url=ready.url
        )
        for kind, each in by_kind.items()
    }


@pytest.fixture(params=KINDS)
def identity(
    request: pytest.FixtureRequest,
    settings: dict[str, Settings],
    platform: Platform,
    pem: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AzureIdentity:
    """One of each kind."""
    if request.param == "machine":
        monkeypatch.delenv("IDENTITY_ENDPOINT")
        monkeypatch.delenv("AZURE_FEDERATED_TOKEN_FILE")
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", platform.url)
    return AzureIdentity(settings[request.param], connection_verify=str(pem))


async def test_its_token_opens_graph(
    identity: AzureIdentity, settings: dict[str, Settings], platform: Platform, emulator: Emulator
) -> None:
    async with GraphClient(settings["managed"], grants=identity) as client:
        assert (await find_site(client, emulator.ready.site)).id.startswith("localhost,")
        await find_site(client, emulator.ready.site)
        [asked] = platform.asked
        assert asked["client_id"] == emulator.ready.client_id  # a user-assigned identity is asked for by it

        # revoked before its end: what azure-identity remembers must not come back
        await emulator.admin("POST", "/expire/tokens")
        assert (await find_site(client, emulator.ready.site)).id.startswith("localhost,")
    assert len(platform.asked) == 2


async def test_it_is_renewed_ahead_of_its_end(identity: AzureIdentity, platform: Platform) -> None:
    now = 0.0
    tokens = Tokens(identity, clock=lambda: now)
    first = await tokens.get()
    now = 3599 - 200
    assert await tokens.get() == first  # the old one serves meanwhile
    renewal = tokens._fetching
    assert renewal is not None
    await renewal
    assert len(platform.asked) == 2
    now = 3599 - 10
    await tokens.get()
    assert len(platform.asked) == 2
    await tokens.close()


@pytest.mark.parametrize("kind", ["certificate", "workload"])
async def test_the_assertion_is_what_signs_in(
    settings: dict[str, Settings], platform: Platform, pem: Path, kind: str
) -> None:
    identity = AzureIdentity(settings[kind], connection_verify=str(pem))
    assert (await identity.fetch()).expires_in == pytest.approx(3599, abs=5)
    [asked] = platform.asked
    assert asked["client_assertion_type"].endswith(":jwt-bearer")
    assert asked["client_assertion"].count(".") == 2
    assert asked["client_assertion"].endswith(".geheim") == (kind == "workload")
    assert "client_secret" not in asked


async def test_a_machines_own_identity_is_asked_for_by_no_name(
    settings: dict[str, Settings], platform: Platform, pem: Path
) -> None:
    own = msgspec.structs.replace(settings["managed"], azure_client_id="")
    await AzureIdentity(own, connection_verify=str(pem)).fetch()
    assert "client_id" not in platform.asked[0]


async def test_a_refusal_lets_the_photos_wait_and_shows_no_secret(
    identity: AzureIdentity, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    platform.refusal = (
        400,
        {
            "error": "invalid_client",
            "error_description": "AADSTS700027: The certificate is not registered.\r\nTrace ID: x",
            "statusCode": 400,
            "message": "No User Assigned Managed Identity found for specified ClientId.",
        },
    )
    async with GraphClient(Settings(), grants=identity) as client:
        with pytest.raises(TransientError, match="signing in to SharePoint with the") as caught:
            await client.sign_in()
        said = str(caught.value)
        assert "upload it under Certificates & secrets" in said or "client id of a user-assigned one" in said
        assert "geheim" not in said
        assert HEADER not in said
        assert all(asked.get("client_assertion", HEADER) not in said for asked in platform.asked)
        assert not caplog.text
        platform.refusal = None
        await client.sign_in()


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_there_is_told_with_what_to_look_at(
    kind: str, settings: dict[str, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://localhost:1")
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://localhost:1/msi/token")
    if kind == "machine":
        monkeypatch.delenv("IDENTITY_ENDPOINT")
        monkeypatch.delenv("AZURE_FEDERATED_TOKEN_FILE")
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://localhost:1")
    away = settings[kind]
    if kind == "certificate":
        away = msgspec.structs.replace(away, azure_authority="https://localhost:1")
    managed = r"no managed identity answers on this machine .*works on an Azure machine or service"
    entra = r"https://localhost:1 does not answer .*: check AZURE_AUTHORITY and the network"
    with pytest.raises(TransientError, match=managed if away.azure_credential == "managed" else entra):
        await AzureIdentity(away).fetch()


async def test_a_proxys_page_in_place_of_a_machines_endpoint_is_nobody_there(
    settings: dict[str, Settings], platform: Platform, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IDENTITY_ENDPOINT")
    monkeypatch.delenv("AZURE_FEDERATED_TOKEN_FILE")
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", platform.url)
    platform.refusal = (403, "destination denied")
    with pytest.raises(TransientError, match="no managed identity answers on this machine"):
        await AzureIdentity(settings["machine"], connection_verify=str(pem)).fetch()


async def test_a_federated_token_that_cannot_be_read_is_named(
    settings: dict[str, Settings], tmp_path: Path
) -> None:
    identity = AzureIdentity(settings["workload"])
    (tmp_path / "federated-token").unlink()
    with pytest.raises(TransientError, match=r"federated-token cannot be read .*AZURE_FEDERATED_TOKEN_FILE"):
        await identity.fetch()


def test_a_workload_without_a_token_file_is_told(
    settings: dict[str, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_FEDERATED_TOKEN_FILE")
    with pytest.raises(PermanentError, match=r"AZURE_FEDERATED_TOKEN_FILE is not set.*label"):
        AzureIdentity(settings["workload"])


async def test_a_workload_without_tenant_or_client_is_told(settings: dict[str, Settings]) -> None:
    bare = msgspec.structs.replace(settings["workload"], azure_tenant_id="", azure_client_id="")
    with pytest.raises(PermanentError, match=r"AZURE_TENANT_ID and AZURE_CLIENT_ID are not set.*label"):
        await GraphClient(bare).open()


def test_what_is_wrong_with_a_certificate_is_told_at_the_start(
    settings: dict[str, Settings], pem: Path, tmp_path: Path
) -> None:
    whole = pem.read_bytes()
    certificate, key = (
        whole[: whole.index(b"-----BEGIN PRIVATE")],
        whole[whole.index(b"-----BEGIN PRIVATE") :],
    )
    locked = self_signed(tmp_path / "locked.pem", password=b"geheim").read_bytes()
    for data, password, expected in (
        (None, "", r"cannot be read \(No such file or directory\): check AZURE_CERTIFICATE_PATH"),
        (certificate, "", "holds no private key: AZURE_CERTIFICATE_PATH takes one file"),
        (key, "", "holds no certificate: AZURE_CERTIFICATE_PATH takes one file"),
        (locked, "", "has a password: set AZURE_CERTIFICATE_PASSWORD"),
        (locked, "another", r"cannot be used \(.*password.*\).*AZURE_CERTIFICATE_PASSWORD the password"),
        (b"\x30\x82 something else", "", "cannot be used .* must be PEM or PKCS#12 with its key"),
    ):
        path = tmp_path / "app.pem"
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)
        broken = msgspec.structs.replace(
            settings["certificate"], azure_certificate_path=str(path), azure_certificate_password=password
        )
        with pytest.raises(PermanentError, match=expected) as caught:
            AzureIdentity(broken)
        assert "another" not in str(caught.value)


async def test_a_certificate_that_goes_missing_lets_the_photos_wait(
    settings: dict[str, Settings], pem: Path, tmp_path: Path
) -> None:
    path = tmp_path / "app.pem"
    shutil.copy(pem, path)
    here = msgspec.structs.replace(settings["certificate"], azure_certificate_path=str(path))
    identity = AzureIdentity(here, connection_verify=str(pem))
    path.unlink()
    with pytest.raises(TransientError, match="check AZURE_CERTIFICATE_PATH"):
        await identity.fetch()
    shutil.copy(pem, path)  # renewed in its place
    await identity.fetch()


def test_an_authority_without_tls_is_told(settings: dict[str, Settings]) -> None:
    plain = msgspec.structs.replace(settings["certificate"], azure_authority="http://localhost:1")
    with pytest.raises(PermanentError, match="must be an https address"):
        AzureIdentity(plain)


def test_without_the_extra_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import azure

    monkeypatch.delattr(azure, "identity")
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(PermanentError, match=r"pip install 'erni-foto-agency\[azure\]'"):
        AzureIdentity(Settings(azure_credential="managed"))


def test_the_platform_names_the_cloud_of_a_workload_unless_the_settings_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/")
    assert authority(Settings(azure_credential="workload")) == "https://login.microsoftonline.us"
    assert authority(Settings(azure_credential="workload", azure_authority="https://mine")) == "https://mine"
    assert authority(Settings()) == "https://login.microsoftonline.com"


async def test_a_token_that_graph_does_not_take_is_asked_for_once_more_only(
    settings: dict[str, Settings], platform: Platform, pem: Path, emulator: Emulator
) -> None:
    await emulator.fault(kind="401", method="GET", match="^/v1.0/sites", times=2)
    identity = AzureIdentity(settings["workload"], connection_verify=str(pem))
    async with GraphClient(settings["workload"], grants=identity) as client:
        with pytest.raises(TransientError, match="it does not take our token"):
            await find_site(client, emulator.ready.site)
    await emulator.admin("DELETE", "/fault")
    assert len(platform.asked) == 2

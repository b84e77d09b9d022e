"""``rediss://`` as docs/deploy.md has it: the server's certificate is verified."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from console.explain import redis_trouble
from events.connection import connect
from sandbox.redis_server import Valkey, free_port
from shared.settings import Settings
from tests.tools import ROOT, require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("redis-server")  # the bundled server is built without TLS


def certify(folder: Path) -> None:
    """Write ca.pem, server.pem and server.key: an authority, and a server at 127.0.0.1."""
    now = dt.datetime.now(dt.UTC)

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = builder("authority", authority).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    signed = builder("server", server).add_extension(names, critical=False)
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.sign(authority, hashes.SHA256()).public_bytes(pem))
    (folder / "server.pem").write_bytes(signed.sign(authority, hashes.SHA256()).public_bytes(pem))
    (folder / "server.key").write_bytes(
        server.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture
def tls_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Host and port of a server that speaks TLS; its authority is in ca.pem."""
    certify(tmp_path)
    monkeypatch.setattr("sandbox.redis_server._candidates", lambda: [require("redis-server")])
    port = free_port()
    options = {
        "bind": "127.0.0.1 127.0.0.2",
        "tls-port": str(port),
        "tls-cert-file": str(tmp_path / "server.pem"),
        "tls-key-file": str(tmp_path / "server.key"),
        "tls-ca-cert-file": str(tmp_path / "ca.pem"),
        "tls-auth-clients": "no",
    }
    with Valkey(tmp_path / "redis", options=options):
        yield f"127.0.0.1:{port}"


async def test_a_certificate_of_the_named_authority_is_accepted(tls_address: str, tmp_path: Path) -> None:
    client = connect(f"rediss://{tls_address}/0?ssl_ca_certs={tmp_path / 'ca.pem'}")
    assert await client.ping()
    await client.aclose()


async def test_a_certificate_of_an_unknown_authority_is_refused(tls_address: str) -> None:
    client = connect(f"rediss://{tls_address}/0")
    with pytest.raises(RedisConnectionError, match="certificate verify failed"):
        await client.ping()
    await client.aclose()


async def test_a_certificate_of_another_host_is_refused(tls_address: str, tmp_path: Path) -> None:
    other = tls_address.replace("127.0.0.1", "127.0.0.2")
    client = connect(f"rediss://{other}/0?ssl_ca_certs={tmp_path / 'ca.pem'}")
    with pytest.raises(RedisConnectionError, match="certificate verify failed"):
        await client.ping()
    await client.aclose()


async def test_a_refused_certificate_names_the_authorities_it_was_checked_against(
    tls_address: str, tmp_path: Path
) -> None:
    for query, against in (
        ("", "the system's authorities; name your own as [?]ssl_ca_certs=FILE"),
        (f"?ssl_ca_certs={tmp_path / 'server.pem'}", str(tmp_path / "server.pem")),
    ):
        url = f"rediss://{tls_address}/0{query}"
        said = await sentence(url)
        assert re.search(rf"its TLS certificate is refused \(.*\), checked against {against}", said)
        assert f"rediss://{tls_address}/0 cannot be used" in said


async def test_a_server_without_tls_is_said(own_redis_server: Valkey) -> None:
    said = await sentence(own_redis_server.url.replace("redis:", "rediss:"))
    assert "it does not answer TLS: write redis:// instead of rediss://" in said


async def sentence(url: str) -> str:
    """What a command says about that address."""
    async with connect(url) as client:
        with pytest.raises(RedisError) as error:
            await client.ping()
    return redis_trouble(error.value, Settings(redis_url=url))


@pytest.fixture
def made_by_the_page(tmp_path: Path) -> Path:
    """The folder in which the commands of docs/deploy.md were run."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    block = page[page.index("    openssl req -x509") :].split("\n\n")[0]
    # the name of this machine instead of the one in the cluster
    commands = block.replace("DNS:redis,", "DNS:localhost,")
    subprocess.run(["/bin/sh", "-ec", commands], cwd=tmp_path, check=True, capture_output=True, timeout=30)
    return tmp_path


async def test_the_certificate_that_the_page_makes_is_accepted(
    made_by_the_page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert made_by_the_page == tmp_path
    monkeypatch.setattr("sandbox.redis_server._candidates", lambda: [require("redis-server")])
    port = free_port()
    options = {
        "bind": "127.0.0.1",
        "tls-port": str(port),
        "tls-cert-file": str(tmp_path / "redis.pem"),
        "tls-key-file": str(tmp_path / "redis.key"),
        "tls-ca-cert-file": str(tmp_path / "ca.pem"),
        "tls-auth-clients": "no",
    }
    with Valkey(tmp_path / "redis", options=options):
        client = connect(f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}")
        assert await client.ping()
        await client.aclose()
        client = connect(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}")
        with pytest.raises(RedisConnectionError, match=r"not valid for '127\.0\.0\.1'"):
            await client.ping()
        await client.aclose()

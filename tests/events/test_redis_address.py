"""A Redis address is read in one place, and what is wrong with it is a sentence before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from events.connection import connect
from events.redis_address import read, shown, tls_trouble
from shared import settings as settings_module
from shared.settings import SettingsError
from tests.project.test_redis_tls import certify

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "redis://localhost:6379/0?foo=bar",
            "there is no parameter 'foo': leave it out, or use socket_timeout",
        ),
        ("redis://localhost/0?ssl_cert_reqs=none", "ssl_cert_reqs is for TLS: write rediss://"),
        (
            "rediss://localhost/0?ssl_cert_reqs=maybe",
            "ssl_cert_reqs has a value .*one of none, optional, required",
        ),
        ("rediss://localhost/0?ssl_min_version=7", "ssl_min_version has a value"),
        ("redis://localhost/0?db=x", "the parameter db has a value that cannot be used"),
        ("redis://localhost/0?max_connections=many", "max_connections has a value"),
        ("redis://:geh#eim@localhost:6379/0", "a # ends the address: write %23 for #"),
        ("redis://:geh/eim@localhost:6379/0", "write %23 for #, %2F for /"),
        ("redis://:geh?eim@localhost:6379/0", "write %23 for #, %2F for /"),
        ("redis://localhost:99999/0", "a port from 0 to 65535"),
        ("redis://localhost:6379/zero", "expected a number behind the host"),
        ("http://localhost:6379", "starts with redis://, rediss:// or unix://"),
        ("localhost:6379", "starts with redis://"),
        ("unix://", "expected the path of a socket"),
        ("sentinel://localhost:26379/erni", "or for sentinels with redis\\+sentinel://"),
        ("redis+sentinel://a:26379,b:26379", "expected the name under which the sentinels know the primary"),
        (
            "redis+sentinel://a:26379,b:26379/0",
            "expected the name under which the sentinels know the primary",
        ),
        ("redis+sentinel://a:26379,b:26379/erni/zero", "expected a number behind the name"),
        ("redis+sentinel://a:26379,b:99999/erni/0", "expected hosts of sentinels, and ports from 1"),
        ("redis+sentinel://a:26379,,b/erni/0", "expected hosts of sentinels"),
        ("redis+sentinel:///erni/0", "expected hosts of sentinels"),
        ("redis+sentinel://:geh/eim@a/erni/0", "expected hosts of sentinels.*write %23 for #, %2F for /"),
        ("redis+sentinel://[::1/erni/0", "expected hosts and ports of sentinels"),
        ("redis+sentinel://a/erni/0?sentinel_tls=yes", "sentinel_tls is for TLS: write rediss\\+sentinel://"),
        ("rediss+sentinel://a/erni/0?sentinel_tls=2", "sentinel_tls has a value .*one of yes, no"),
        ("redis+sentinel://a/erni/0?ssl_cert_reqs=none", "for TLS: write rediss\\+sentinel:// instead of"),
        ("redis://a/0?sentinel_password=geheim", "there is no parameter 'sentinel_password'"),
        ("redis://a:26379,b:26379/0", "expected an address with a host"),
        ("cluster://a:7000", "or for a cluster with redis\\+cluster://"),
        ("redis+cluster://", "expected hosts of nodes, and ports from 1 to 65535"),
        ("redis+cluster://a:7000,,b:7001", "expected hosts of nodes"),
        ("redis+cluster://a:7000,b:99999", "expected hosts of nodes"),
        ("redis+cluster://[::1", "expected hosts and ports of nodes"),
        ("redis+cluster://:geh/eim@a:7000", "expected hosts of nodes.*write %23 for #, %2F for /"),
        ("redis+cluster://a:7000/1", "a cluster has database 0 only"),
        ("redis+cluster://a:7000?db=1", "a cluster has database 0 only"),
        ("redis+cluster://a:7000/erni/0", "a cluster has database 0 only"),
        ("redis+cluster://a:7000?ssl_cert_reqs=none", "for TLS: write rediss\\+cluster:// instead of"),
        ("redis+cluster://a:7000?sentinel_password=geheim", "there is no parameter 'sentinel_password'"),
    ],
)
def test_what_is_wrong_is_a_sentence_for_every_process(url: str, says: str) -> None:
    for reader in (read, connect):
        with pytest.raises(ValueError, match=says) as wrong:
            reader(url)
        assert "eim" not in str(wrong.value)
    with pytest.raises(SettingsError, match=says):
        settings_module.load({"REDIS_URL": url})


@pytest.mark.parametrize(
    ("url", "database", "people_see"),
    [
        ("redis://localhost", 0, "redis://localhost:6379/0"),
        ("redis://erni:geheim@redis.example:6380/3", 3, "redis://redis.example:6380/3"),
        ("redis://:geh%23eim@[::1]:6379/?db=4&protocol=3", 4, "redis://[::1]:6379/4"),
        ("rediss://redis.example/2?ssl_cert_reqs=none", 2, "rediss://redis.example:6379/2"),
        ("unix://u:geheim@/run/redis.sock?db=5", 5, "unix:///run/redis.sock?db=5"),
        (
            "redis+sentinel://erni:geheim@a.example,[::1]:5000/erni/6?sentinel_password=geheim",
            6,
            "redis+sentinel://a.example:26379,[::1]:5000/erni/6",
        ),
        ("rediss+sentinel://:geh%40eim@a:1,b:2/erni?db=7", 7, "rediss+sentinel://a:1,b:2/erni/7"),
        (
            "redis+cluster://erni:geheim@a.example:7000,[::1]:7001,b/",
            0,
            "redis+cluster://a.example:7000,[::1]:7001,b:6379",
        ),
        ("rediss+cluster://:geh%40eim@a/0?ssl_cert_reqs=none", 0, "rediss+cluster://a:6379"),
    ],
)
async def test_the_database_stays_in_the_address_that_is_shown(
    url: str, database: int, people_see: str
) -> None:
    assert read(url).db == database
    assert shown(url) == people_see
    async with connect(url) as client:
        assert client.connection_pool.connection_kwargs["db"] == database


def test_a_password_may_have_every_character_if_it_is_escaped() -> None:
    assert read("redis://a%40b:%23%2F%3F%40%3A@localhost").password == "#/?@:"
    assert read("redis://a%40b:x@localhost").username == "a@b"


def test_a_mistake_in_a_tls_file_is_named_with_the_file(tmp_path: Path) -> None:
    certify(tmp_path)
    (tmp_path / "text").write_text("no certificate")
    locked = tmp_path / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n")
    (tmp_path / "other").mkdir()
    certify(tmp_path / "other")
    ca, certificate, key = (tmp_path / name for name in ("ca.pem", "server.pem", "server.key"))
    read(f"rediss://h/0?ssl_ca_certs={ca}&ssl_certfile={certificate}&ssl_keyfile={key}")
    for query, says in (
        (f"ssl_ca_certs={tmp_path}/gone", f"ssl_ca_certs={tmp_path}/gone: no such file or directory"),
        (f"ssl_ca_certs={tmp_path}", f"ssl_ca_certs={tmp_path}: is a directory"),
        (f"ssl_ca_certs={tmp_path}/text", f"ssl_ca_certs={tmp_path}/text: is no certificate in PEM form"),
        (f"ssl_certfile={tmp_path}/gone", f"ssl_certfile={tmp_path}/gone: no such file"),
        (f"ssl_certfile={certificate}", f"ssl_certfile={certificate}: is no certificate with its key"),
        (f"ssl_keyfile={key}", f"ssl_keyfile={key}: name its certificate too"),
        (
            f"ssl_certfile={certificate}&ssl_keyfile={tmp_path}/text",
            f"{tmp_path}/text: is no certificate with",
        ),
        (f"ssl_certfile={certificate}&ssl_keyfile={locked}", f"{locked}: the key has a password"),
        (
            f"ssl_certfile={certificate}&ssl_keyfile={tmp_path}/other/server.key",
            f"ssl_keyfile={tmp_path}/other/server.key: the key does not belong to the certificate",
        ),
    ):
        with pytest.raises(ValueError, match=says):
            read(f"rediss://h/0?{query}")


def test_an_error_that_is_not_about_tls_is_none_of_it() -> None:
    assert tls_trouble(ConnectionError("refused"), "redis://localhost") is None


def test_user_and_password_are_the_servers_and_the_parameters_are_the_sentinels() -> None:
    address = read(
        "rediss+sentinel://worker:arb%23eit@a,b:5/erni?sentinel_username=w&sentinel_password=p%26w"
    )
    assert (address.username, address.password) == ("worker", "arb#eit")
    assert (address.sentinel_username, address.sentinel_password) == ("w", "p&w")
    assert (address.sentinels, address.master) == ((("a", 26379), ("b", 5)), "erni")
    assert address.is_tls
    assert address.sentinel_tls
    assert not read("rediss+sentinel://a/erni?sentinel_tls=no").sentinel_tls
    assert not read("redis+sentinel://a/erni").sentinel_tls


def test_the_address_of_a_cluster_names_some_of_its_nodes() -> None:
    address = read("redis+cluster://worker:arb%23eit@a:7000,b,a:7000/0?socket_timeout=3")
    assert (address.username, address.password) == ("worker", "arb#eit")
    assert address.nodes == (("a", 7000), ("b", 6379))
    assert (address.host, address.port) == ("a", 7000)
    assert address.connection == {"socket_timeout": 3.0}
    assert not address.is_tls
    assert read("rediss+cluster://a").is_tls

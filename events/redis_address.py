"""Reads a Redis address, the same for agents, command line and stack, and explains what is wrong with it."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec
from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS
from redis.exceptions import TimeoutError as RedisTimeoutError

_SCHEMES: Final = (
    *("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"),
    *("redis+cluster", "rediss+cluster"),
)
_SENTINEL: Final = ("sentinel_username", "sentinel_password", "sentinel_tls")
_SENTINEL_PORT: Final = 26379
_PORT: Final = 6379
_PLACE: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:]+))(?::([0-9]{1,5}))?")
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_TLS: Final = (
    *_TLS_FILES,
    "ssl_password",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_min_version",
    "ssl_ciphers",
)
_CONNECTION: Final = ("socket_timeout", "socket_connect_timeout", "max_connections", "client_name")
# what other clients of the address may want; ours has its own values, on which the rest of the code relies
_IGNORED: Final = (
    *("protocol", "decode_responses", "encoding", "encoding_errors", "timeout", "health_check_interval"),
    *("retry_on_timeout", "retry_on_error", "socket_keepalive", "socket_read_size", "legacy_responses"),
)
_ESCAPED: Final = "write %23 for #, %2F for /, %3F for ?, %40 for @ and %3A for : in a user name or password"


class RedisAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the parts of an address that could be read."""

    scheme: str
    host: str = "localhost"
    port: int = _PORT
    path: str = ""
    """Of a socket (``unix:``)."""
    db: int = 0
    username: str | None = None
    password: str | None = None
    connection: dict[str, Any] = {}
    """Options of redis-py that are the address's own: time limits, number of connections, name."""
    tls: dict[str, Any] = {}
    """Options of redis-py that begin with ``ssl_`` (``rediss:``)."""
    sentinels: tuple[tuple[str, int], ...] = ()
    """Hosts and ports of the sentinels that know the primary; `host` and `port` mean nothing then."""
    master: str = ""
    """The name under which the sentinels know the primary and its replicas."""
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    """Of the sentinels themselves; user and password before the ``@`` are for the servers they watch."""
    sentinel_tls: bool = False
    nodes: tuple[tuple[str, int], ...] = ()
    """Hosts and ports of some nodes of a cluster; `host` and `port` are those of the first one."""

    @property
    def is_tls(self) -> bool:
        """Return whether the connection is encrypted."""
        return self.scheme.startswith("rediss")

    def __str__(self) -> str:
        """Write the address with its database and without anything that may be secret."""
        if self.scheme == "unix":
            return f"unix://{self.path}" + (f"?db={self.db}" if self.db else "")
        if self.sentinels:
            places = ",".join(_written(host, port) for host, port in self.sentinels)
            return f"{self.scheme}://{places}/{self.master}/{self.db}"
        if self.nodes:
            return f"{self.scheme}://{','.join(_written(host, port) for host, port in self.nodes)}"
        return f"{self.scheme}://{_written(self.host, self.port)}/{self.db}"


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read(url: str) -> RedisAddress:
    """Read an address. Raises ValueError with a sentence that quotes nothing secret.

    Opens no connection, but reads the files of a TLS address.
    """
    scheme = url.partition(":")[0].lower()
    if scheme not in _SCHEMES or "://" not in url:
        raise ValueError(
            "expected an address that starts with redis://, rediss:// or unix://, or for sentinels with"
            " redis+sentinel:// or rediss+sentinel://, or for a cluster with redis+cluster:// or"
            " rediss+cluster://"
        )
    if "#" in url:
        raise ValueError(f"a # ends the address: {_ESCAPED}")
    if scheme.endswith("+sentinel"):
        return _read_sentinel(url, scheme)
    if scheme.endswith("+cluster"):
        return _read_cluster(url, scheme)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(
            "expected an address with a host, and a port from 0 to 65535, such as redis://localhost:6379/0;"
            f" {_ESCAPED}"
        ) from None
    own, tls, db, _ = _parameters(parts.query, scheme)
    common: dict[str, Any] = {
        "scheme": scheme,
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "connection": own,
        "tls": tls,
    }
    if scheme == "unix":
        if not parts.path.strip("/"):
            raise ValueError("expected the path of a socket, such as unix:///run/redis.sock?db=0")
        return RedisAddress(path=unquote(parts.path), db=db or 0, **common)
    if parts.path.strip("/") and not (parts.path[1:].isascii() and parts.path[1:].isdigit()):
        raise ValueError(f"expected a number behind the host, such as redis://localhost:6379/0; {_ESCAPED}")
    if tls:
        _check_files(tls)
    in_path = int(parts.path[1:]) if parts.path.strip("/") else 0
    return RedisAddress(
        host=unquote(parts.hostname or "localhost"),
        port=_PORT if port is None else port,
        db=in_path if db is None else db,
        **common,
    )


def _read_sentinel(url: str, scheme: str) -> RedisAddress:
    """Read the address of a set that sentinels watch: ``redis+sentinel://host:26379,host2:26379/NAME/0``."""
    example = f"{scheme}://host:26379,host2:26379/mymaster/0"
    parts, username, password, places = _several(url, example, what="sentinels", port=_SENTINEL_PORT)
    master, _, number = parts.path.strip("/").partition("/")
    if not master or (master.isdigit() and not number):
        raise ValueError(f"expected the name under which the sentinels know the primary, such as {example}")
    if number and not (number.isascii() and number.isdigit()):
        raise ValueError(f"expected a number behind the name of the primary, such as {example}; {_ESCAPED}")
    own, tls, db, sentinel = _parameters(parts.query, scheme)
    if tls:
        _check_files(tls)
    return RedisAddress(
        scheme=scheme,
        sentinels=places,
        master=unquote(master),
        db=int(number or 0) if db is None else db,
        username=username,
        password=password,
        connection=own,
        tls=tls,
        sentinel_username=sentinel.get("sentinel_username"),
        sentinel_password=sentinel.get("sentinel_password"),
        sentinel_tls=sentinel.get("sentinel_tls", scheme == "rediss+sentinel"),
    )


def _read_cluster(url: str, scheme: str) -> RedisAddress:
    """Read the address of a cluster, which names some of its nodes: ``redis+cluster://host:7000,host2:7001``."""
    example = f"{scheme}://host:7000,host2:7001"
    parts, username, password, places = _several(url, example, what="nodes", port=_PORT)
    own, tls, db, _ = _parameters(parts.query, scheme)
    if parts.path.strip("/") not in ("", "0") or db:
        raise ValueError(f"a cluster has database 0 only, and an address such as {example}; {_ESCAPED}")
    if tls:
        _check_files(tls)
    return RedisAddress(
        scheme=scheme,
        host=places[0][0],
        port=places[0][1],
        nodes=places,
        username=username,
        password=password,
        connection=own,
        tls=tls,
    )


def _several(
    url: str, example: str, *, what: str, port: int
) -> tuple[SplitResult, str | None, str | None, tuple[tuple[str, int], ...]]:
    """Read an address with several hosts: its parts, user, password, hosts with their ports."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"expected hosts and ports of {what}, such as {example}; {_ESCAPED}") from None
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    places = []
    for text in hosts.split(","):
        found = _PLACE.fullmatch(text.strip())
        if found is None or not 0 < int(found[3] or port) <= 65535:
            raise ValueError(
                f"expected hosts of {what}, and ports from 1 to 65535, such as {example}; {_ESCAPED}"
            )
        places.append((unquote(found[1] or found[2]), int(found[3] or port)))
    return parts, unquote(username) or None, unquote(password) or None, tuple(dict.fromkeys(places))


def shown(url: str) -> str:
    """Return an address for people: with its database, without user, password and parameters."""
    try:
        return str(read(url))
    except ValueError:
        return url.partition(":")[0] + ":"


def _parameters(query: str, scheme: str) -> tuple[dict[str, Any], dict[str, Any], int | None, dict[str, Any]]:
    """Read what stands behind the ``?``: options of the connection and TLS, database, sentinels."""
    own: dict[str, Any] = {}
    tls: dict[str, Any] = {}
    sentinel: dict[str, Any] = {}
    db: int | None = None
    secure = scheme.startswith("rediss")
    secured = "rediss" + scheme.removeprefix("rediss").removeprefix("redis")
    sentinels = scheme.endswith("+sentinel")
    known = (*_CONNECTION, "db", *(_SENTINEL if sentinels else ()), *(_TLS if secure else ()))
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in _IGNORED:
            continue
        if name in _TLS and not secure:
            raise ValueError(f"the parameter {name} is for TLS: write {secured}:// instead of {scheme}://")
        if name not in known:
            raise ValueError(f"there is no parameter {name[:40]!r}: leave it out, or use {', '.join(known)}")
        value = _value(name, text)
        if name == "sentinel_tls" and value and not secure:
            raise ValueError(
                f"the parameter sentinel_tls is for TLS: write rediss+sentinel:// instead of {scheme}://"
            )
        if name == "db":
            db = int(value)
        else:
            (tls if name in _TLS else sentinel if name in _SENTINEL else own)[name] = value
    return own, tls, db, sentinel


def _value(name: str, text: str) -> Any:
    """Read one parameter. Raises ValueError with its name, and what is allowed if that is a short list."""
    allowed = {"ssl_cert_reqs": _CERT_REQS, "sentinel_tls": ("yes", "no")}.get(name, ())
    try:
        value: Any = URL_QUERY_ARGUMENT_PARSERS.get(name, str)(text)
        if value is None or value == "" or (allowed and value not in allowed):
            raise ValueError(name)  # noqa: TRY301 - as if its parser had refused it
        if name == "ssl_min_version":
            value = ssl.TLSVersion(value)
    except (TypeError, ValueError):
        known = f" (one of {', '.join(allowed)})" if allowed else ""
        raise ValueError(f"the parameter {name} has a value that cannot be used{known}") from None
    return value == "yes" if name == "sentinel_tls" else value


_CERT_REQS: Final = ("none", "optional", "required")


def _check_files(tls: dict[str, Any]) -> None:
    """Read the files of an address once, so that a mistake is named with its file and not as an outage."""
    for name in _TLS_FILES:
        path = tls.get(name)
        if path is None:
            continue
        try:
            if name == "ssl_ca_path":
                next(Path(path).iterdir(), None)
            else:
                Path(path).read_bytes()
        except OSError as error:
            raise ValueError(f"{name}={path}: {(error.strerror or str(error)).lower()}") from None
    context = ssl.create_default_context()
    if authorities := tls.get("ssl_ca_certs"):
        try:
            context.load_verify_locations(cafile=authorities)
        except ssl.SSLError:
            raise ValueError(f"ssl_ca_certs={authorities}: is no certificate in PEM form") from None
    certificate, key = tls.get("ssl_certfile"), tls.get("ssl_keyfile")
    if key and not certificate:
        raise ValueError(f"ssl_keyfile={key}: name its certificate too, as ssl_certfile")
    if certificate:
        _check_certificate(context, certificate, key, tls.get("ssl_password"))


def _check_certificate(
    context: ssl.SSLContext, certificate: str, key: str | None, password: str | None
) -> None:
    try:
        # a password that is asked for at the terminal would stop a process that has none
        context.load_cert_chain(certificate, key, password=password or "")
    except ssl.SSLError as error:
        where = f"ssl_certfile={certificate}" + (f", ssl_keyfile={key}" if key else "")
        if error.reason == "KEY_VALUES_MISMATCH":
            why = "the key does not belong to the certificate"
        elif b"ENCRYPTED" in Path(key or certificate).read_bytes():
            why = "the key has a password, and ssl_password is not it"
        else:
            why = "is no certificate with its key in PEM form"
        raise ValueError(f"{where}: {why}") from None


def tls_trouble(error: BaseException, url: str) -> str | None:
    """Return what failed in the TLS handshake, in words; None if the error is not about TLS."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        if isinstance(error, RedisTimeoutError) and url.startswith(("rediss:", "rediss+")):
            # a server without TLS waits for the rest of what it takes for a command
            return "it does not answer TLS: write redis:// instead of rediss://, or name its TLS port"
        return None
    if isinstance(cause, ssl.SSLCertVerificationError):
        authorities = read(url).tls.get("ssl_ca_certs")
        against = authorities or "the system's authorities; name your own as ?ssl_ca_certs=FILE"
        return (
            f"its TLS certificate is refused ({cause.verify_message.rstrip('.')}), checked against {against}"
        )
    reason = cause.reason or ""
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
        return "it answers without TLS: write redis:// instead of rediss://, or name its TLS port"
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return "it wants a TLS certificate of ours: add ssl_certfile and ssl_keyfile to the address"
    return f"TLS failed: {reason.replace('_', ' ').lower() or cause}"

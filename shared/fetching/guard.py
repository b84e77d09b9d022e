"""Decides which hosts a source may be on, and makes HTTP sessions that connect to no other.

A source's address comes from outside, so it may point inside: at a metadata service, at Redis, at a
neighbour. Only the address of the connection itself can be checked: a name can have another address a
moment later, and 2130706433 is 127.0.0.1. So the check is made where the socket is made (aiohttp calls no
resolver for IP literals).
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Final, TypeAlias

import aiohttp

from shared.retry.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohappyeyeballs import AddrInfoType
    from aiohttp.abc import AbstractResolver
    from yarl import URL

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# The last 32 bits are an IPv4 address: behind a NAT64 (RFC 6052), and in the deprecated "IPv4-compatible"
# form (RFC 4291, section 2.5.5.1) that some systems still understand.
_EMBEDDING: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
# RFC 8215: a NAT64 of one's own; where in it the IPv4 address lies is known there alone.
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_SERVICES: Final = (
    # RFC 6890: some of them are global by IANA's registry, and all mean a router or a gateway
    ipaddress.IPv4Network("192.0.0.0/24"),
    # Azure's platform service, on every virtual machine
    # (https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16)
    ipaddress.IPv4Network("168.63.129.16/32"),
)
"""Addresses that look public and are answered inside a network."""
_PORTS: Final = (
    # what no browser connects to either (https://fetch.spec.whatwg.org/#port-blocking)
    "0 1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111 113"
    " 115 117 119 123 135 137 139 143 161 179 389 427 465 512 513 514 515 526 530 531 532 540 548 554"
    " 556 563 587 601 636 989 990 993 995 1719 1720 1723 2049 3659 4045 4190 5060 5061 6000 6566 6665"
    " 6666 6667 6668 6669 6679 6697 10080"
    # and services that a web request could harm: Docker, etcd, databases, Redis, Kubernetes
    " 2375 2376 2379 2380 3306 5432 6379 6380 6443 10250 10255 11211 26379 27017"
)
_NO_WEB_PORTS: Final = frozenset(int(port) for port in _PORTS.split())
"""A host that is named without a port is asked on every port but these."""
_CONNECT_SECONDS: Final = 10.0
_SILENCE_SECONDS: Final = 30.0


class AddressRefusedError(OSError):
    """A connection to an address that is not public was refused. aiohttp wraps this error."""


def is_public(text: str) -> bool:
    """Report whether an IP address is public, also where IPv6 wraps an IPv4 address."""
    try:
        address = ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError:
        return False
    return all(
        part.is_global
        and not (part.is_multicast or part.is_reserved or getattr(part, "is_site_local", False))
        and part not in _LOCAL_NAT64
        and not any(part in network for network in _SERVICES)
        for part in _unwrapped(address)
    )


def _unwrapped(address: Address) -> tuple[Address, ...]:
    """The IPv4 addresses an IPv6 address stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    if address.ipv4_mapped:
        return (address.ipv4_mapped,)
    if address.sixtofour:
        return (address.sixtofour,)
    if address.teredo:
        return address.teredo
    if any(address in network for network in _EMBEDDING):
        return (ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF),)
    return (address,)


class Hosts:
    """The setting SOURCE_HOSTS: names, ``name:port``, ``*.name`` for what is below it, ``*`` for all.

    A host that is named literally may have a private address, because the operator chose it. A host that
    only a ``*`` allows must have a public one. An empty setting allows nothing.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        entries = {entry.strip().rstrip(".").lower() for entry in allowed}
        self._any = "*" in entries
        self._below = tuple(entry[1:] for entry in entries if entry.startswith("*."))
        self._literal = frozenset(entry for entry in entries if entry and not entry.startswith("*"))

    def named(self, url: URL) -> bool:
        """Report whether the host is named literally."""
        return bool(self._literal & {_host(url), _shown(url)}) or self._names_port(url)

    def _names_port(self, url: URL) -> bool:
        return f"{_shown(url)}:{url.port}" in self._literal

    def check(self, url: URL) -> None:
        """Raise PermanentError unless the host is allowed."""
        if self._any or self.named(url) or (self._below and _host(url).endswith(self._below)):
            if url.port in _NO_WEB_PORTS and not self._names_port(url):
                raise PermanentError(
                    f"photos are not fetched from port {url.port}, which is another service's: if it is a web"
                    f" server's, name it with its port in SOURCE_HOSTS ({_host(url)[:100]}:{url.port}), and"
                    " start photo_fetcher again"
                )
            return
        allowed = (
            ", ".join(sorted(self._literal) + ["*" + name for name in sorted(self._below)]) or "none yet"
        )
        raise PermanentError(
            f"photos may not be fetched from {_host(url)[:100]!r}: add it to SOURCE_HOSTS if it is trusted"
            f" (allowed: {allowed[:300]}), and start photo_fetcher again"
        )


def _shown(url: URL) -> str:
    """Return the host as it stands before a port: an IPv6 address in brackets."""
    host = _host(url)
    return f"[{host}]" if ":" in host else host


def _host(url: URL) -> str:
    return (url.host or "").rstrip(".").lower()


def session(*, public_only: bool, resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
    """An HTTP session that, if `public_only`, makes no connection to an address that is not public.

    It follows no redirect by itself if the caller passes ``allow_redirects=False``, takes no proxy and no
    password from the environment, and keeps no cookies.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            socket_factory=_public_socket if public_only else None, resolver=resolver
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": "erni-foto-agency",
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",
        },
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS),
        trust_env=False,
    )


def _public_socket(info: AddrInfoType) -> socket.socket:
    """A socket for an address that is about to be connected to. Raises AddressRefusedError."""
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        # Not the address itself: the sentence may be read by whoever sent the event.
        raise AddressRefusedError("the host has an address that is not public")
    return socket.socket(family, kind, protocol)

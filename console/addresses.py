"""Shows addresses to people without what may be secret in them."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def bare(url: str) -> str:
    """An address without what may be secret in it: userinfo and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def host(url: str) -> str:
    """Return the host of an address alone: the path may be secret, too."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))

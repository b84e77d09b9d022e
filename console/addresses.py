"""Shows addresses to people without what may be secret in them."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def bare(url: str) -> str:
    """An address without what may be secret in it: userinfo and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))

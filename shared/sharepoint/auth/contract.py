"""What every way to sign in has in common: a grant, where it is asked for, and what it is for."""

from __future__ import annotations

import os
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from shared.settings import Settings


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A token and how long it is good for."""

    access_token: str
    expires_in: float
    """Seconds."""


class Grants(Protocol):
    """Where tokens come from."""

    async def fetch(self) -> Grant:
        """A new token. Network errors pass through; a refusal is a TransientError (see `ClientSecret`)."""

    async def close(self) -> None:
        """Close what is open."""


def authority(settings: Settings) -> str:
    """Where the app signs in. The platform of a workload identity names it too, for its own cloud."""
    where = settings.azure_authority
    if settings.azure_credential == "workload" and where == Settings().azure_authority:
        where = os.environ.get("AZURE_AUTHORITY_HOST") or where
    return where.rstrip("/")


def scope(settings: Settings) -> str:
    """What the token is for: the Graph of this cloud, or the public one when Graph is on this machine."""
    parts = urlsplit(settings.graph_url)
    host = parts.hostname
    if not host or host in ("localhost", "127.0.0.1"):
        host = "graph.microsoft.com"
    return f"https://{host}/.default"

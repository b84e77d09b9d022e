"""Defines one thing that must be true after a run."""

from __future__ import annotations

import msgspec


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must be true."""

    name: str
    looked_at: str
    problems: list[str]

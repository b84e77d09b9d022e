"""Notices that wait for a web hook, as the notifier postpones them."""

from __future__ import annotations

from typing import Final

import msgspec

from events.types import WebhookQueued
from shared.delivery import packing

POSTPONED: Final = "erni:delayed:webhook_notifier"
"""The sorted set in which they wait, by when they are due (ms)."""


def notice(endpoint: str, *, number: int = 1) -> bytes:
    """A notice for an endpoint."""
    event = msgspec.json.encode(WebhookQueued(endpoint=endpoint, body="{}"))
    fields = [b"id", b"e-%d" % number, b"data", event]
    return packing.pack([f"1-{number}", fields, "1:1:1", "erni:webhook.queued"])

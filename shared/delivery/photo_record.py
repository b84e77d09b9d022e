"""Defines the photo record: a photo's way so far, written with each hand-off, for people who look it up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from events import topology
from shared.telemetry.redact import scrub

if TYPE_CHECKING:
    from events.types import Step


class AgentPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold what one agent last did with a photo."""

    agent: str
    outcome: str
    """done, dead or postponed"""
    started: float
    """Unix time in seconds."""
    seconds: float
    attempts: int = 1
    deliveries: int = 1
    message: str = ""
    traceparent: str = ""
    """Of the delivery's span."""
    until: float = 0.0
    """Unix time in seconds when a postponed photo comes back."""


class Submitted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold who published a photo over HTTP, and when; written before an agent has seen it."""

    source: str
    event_id: str
    at: float
    """Unix time in seconds."""
    traceparent: str = ""
    """Of the photo's trace."""


class PhotoRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a photo's way through the agents, in the pipeline's order."""

    photo_id: str
    session_id: str | None
    file_name: str | None
    parts: list[AgentPart]
    unknown_fields: list[str] = []
    """Names in its submission that no field has, and that were ignored."""
    submitted: Submitted | None = None
    """None: it did not come over HTTP."""

    @property
    def status(self) -> str:
        """Return validated, dead, postponed, or the agent that the photo is on its way to."""
        if self.goes_to:
            return f"on its way to {self.goes_to}"
        if not self.parts:
            return "unknown"
        if any(part.outcome == "dead" for part in self.parts):
            return "dead"
        return "postponed" if self.postponed is not None else "validated"

    @property
    def goes_to(self) -> str:
        """Return the agent that the photo is on its way to; '' if it is not."""
        if not self.parts:
            return topology.AGENTS[0] if self.submitted else ""
        if self.postponed is not None or any(part.outcome == "dead" for part in self.parts):
            return ""
        newest = max(self.parts, key=lambda part: part.started)
        if newest.outcome == "postponed":
            # its time is over: this agent tries it again
            return newest.agent
        after = topology.AGENTS.index(self.parts[-1].agent) + 1
        return topology.AGENTS[after] if after < len(topology.AGENTS) else ""

    @property
    def postponed(self) -> AgentPart | None:
        """Return the part of the agent that postponed the photo last; None if it goes on its way.

        What later agents did before that belongs to an earlier submission of the photo.
        """
        last = max(self.parts, key=lambda part: part.started, default=None)
        waits = last is not None and last.outcome == "postponed" and last.until > time.time()
        return last if waits else None

    @property
    def trace_id(self) -> str:
        """Return the trace id, 32 hex digits, or '' if the photo was not traced."""
        of_parts = (part.traceparent[3:35] for part in self.parts if part.traceparent)
        return next(of_parts, self.submitted.traceparent[3:35] if self.submitted else "")


def record_fields(
    step: Step,
    outcome: str,
    message: str,
    traceparent: str,
    session_id: str | None,
    file_name: str | None,
    until: float = 0.0,
) -> list[str | bytes]:
    """Return the hash fields that one settlement writes."""
    part = AgentPart(
        agent=step.agent,
        outcome=outcome,
        started=step.started,
        seconds=step.seconds,
        attempts=step.attempts,
        deliveries=step.deliveries,
        message=scrub(message)[:300] if message else "",
        traceparent=traceparent,
        until=until,
    )
    fields: list[str | bytes] = [step.agent, msgspec.json.encode(part)]
    if session_id:
        fields += ("session", session_id)
    if file_name:
        fields += ("file_name", file_name[:255].encode("utf-8", "replace"))
    return fields

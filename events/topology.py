"""Defines the pipeline: which agent reads and writes which stream. Pictures and documents derive from it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from . import types

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPES: Final[Mapping[str, type[types.Event]]] = MappingProxyType(
    {
        "photo.submitted": types.PhotoSubmitted,
        "schema.extracted": types.SchemaExtracted,
        "photo.fetched": types.PhotoFetched,
        "photo.analyzed": types.PhotoAnalyzed,
        "photo.uploaded": types.PhotoUploaded,
        "photo.validated": types.PhotoValidated,
        "photo.failed": types.PhotoFailed,
        "session.completed": types.SessionCompleted,
        "session.reported": types.SessionReported,
        "webhook.queued": types.WebhookQueued,
    }
)
"""Event type name, which is also the stream's name, and the struct its data has."""

NAMES: Final[Mapping[type[types.Event], str]] = MappingProxyType(
    {struct: name for name, struct in TYPES.items()}
)


_BULK: Final = ".bulk"


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Describes when an entry comes back that failed in a way that may pass: one attempt, then a wait."""

    delays: tuple[float, ...]
    """Seconds after the first, the second, … failed attempt; after one more the entry is a dead letter."""
    longest: float
    """Seconds since the first postponement after which the entry is a dead letter, tried or not."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Describes an agent's streams: it reads some as a consumer group of its own name, and writes others."""

    agent: str
    does: str
    """A few words for the picture: what it does with the first stream it reads."""
    does_too: str = ""
    """What it does with the second one."""
    handoff_type: str
    """The value of the span attribute of that name."""
    reads: tuple[str, ...]
    """Event types."""
    writes: tuple[str, ...]
    bulk: tuple[str, ...] = ()
    """Those of `reads` that have a second stream, for bulk work."""
    about_photos: bool = True
    """Whether its entries are photos on their way: sessions, photo records and `photo.failed` follow them."""
    schedule: Schedule | None = None
    """None: three attempts a few seconds apart, as the delivery engine makes them."""

    @property
    def types(self) -> tuple[str, ...]:
        """The event type of each of `streams`."""
        return self.reads + self.bulk

    @property
    def streams(self) -> tuple[str, ...]:
        """Every stream it reads. Those with bulk work come last: it waits while there is other work."""
        return self.reads + tuple(map(bulk_of, self.bulk))


def bulk_of(name: str) -> str:
    """Return the stream with the bulk work of an event type."""
    return name + _BULK


def type_of(stream: str) -> str:
    """Return the event type that a stream holds."""
    return stream.removesuffix(_BULK)


PIPELINE: Final[tuple[Stage, ...]] = (
    Stage(
        agent="schema_extractor",
        does="reads the target library's columns",
        handoff_type="schema_extraction",
        reads=("photo.submitted",),
        bulk=("photo.submitted",),
        writes=("schema.extracted",),
    ),
    Stage(
        agent="photo_fetcher",
        does="brings the bytes in, hashes them, reads EXIF",
        handoff_type="photo_fetch",
        reads=("schema.extracted",),
        bulk=("schema.extracted",),
        writes=("photo.fetched",),
    ),
    Stage(
        agent="vision_analyzer",
        does="describes the photo in the library's own terms",
        handoff_type="vision_analysis",
        reads=("photo.fetched",),
        bulk=("photo.fetched",),
        writes=("photo.analyzed",),
    ),
    Stage(
        agent="sharepoint_uploader",
        does="stores photo and metadata",
        handoff_type="sharepoint_upload",
        reads=("photo.analyzed",),
        bulk=("photo.analyzed",),
        writes=("photo.uploaded",),
    ),
    Stage(
        agent="validation_reporter",
        does="reads back and compares",
        does_too="writes the session's report, dead photos too",
        handoff_type="validation_report",
        reads=("photo.uploaded", "session.completed"),
        bulk=("photo.uploaded",),
        writes=("photo.validated", "session.reported"),
    ),
)

NOTIFIER: Final = Stage(
    agent="webhook_notifier",
    does="posts notices to web hooks",
    handoff_type="webhook_delivery",
    reads=("webhook.queued",),
    writes=(),
    about_photos=False,
    # after the example of Standard Webhooks 1.0.0, § Deliverability and reliability
    schedule=Schedule(delays=(5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0), longest=259_200.0),
)
"""Stands beside the pipeline: no photo passes it, and the pipeline works without it."""

STAGES: Final = (*PIPELINE, NOTIFIER)
"""Everything that reads a stream as a consumer group of the delivery engine."""

INTAKE: Final = "photo.submitted"
"""Where upstream systems publish."""
VALIDATED: Final = "photo.validated"
"""Where a photo's way ends well."""
FAILED: Final = "photo.failed"
"""Written beside each dead letter that names a photo, by the settle of whichever agent gives up."""
COMPLETED: Final = "session.completed"
"""Written by the settle that ends a session's last photo, not by an agent."""
QUEUED: Final = "webhook.queued"
"""Written beside an end, by the same settle, once for each web hook that wants it."""
PUBLIC: Final = ("photo.validated", "photo.failed", "session.reported")
"""Output streams: they belong to their readers, and are trimmed by age only."""

AGENTS: Final = tuple(stage.agent for stage in PIPELINE)
CONSUMERS: Final = tuple(stage.agent for stage in STAGES)
"""The agents, and the notifier."""
BULK: Final = frozenset(name for stage in PIPELINE for name in stage.bulk)
"""The event types whose streams have a second one beside them. What was bulk work stays bulk work."""

STREAMS: Final = (*TYPES, *map(bulk_of, sorted(BULK)))
"""The names of all streams except those of the dead letters."""


def stage_of(agent: str) -> Stage:
    """Return the stage of an agent or of the notifier. Raises KeyError with all their names."""
    for stage in STAGES:
        if stage.agent == agent:
            return stage
    raise KeyError(f"no agent is called {agent!r}; there are {', '.join(CONSUMERS)}")


def picture() -> str:
    """Draw the pipeline as text: the stream an agent reads, the agent, the stream it writes."""
    lines = []
    for stage in PIPELINE:
        for number, (read, written) in enumerate(zip(stage.reads, stage.writes, strict=True)):
            does = stage.does if number == 0 else stage.does_too
            lines.append(f"{read:<17} ─▶ {stage.agent:<19} {does:<47} ─▶ {written}")
    return "\n".join(lines) + "\n"

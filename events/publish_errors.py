"""Says why an event was not published. `events.publisher` exports these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import intake
from .connection import RedisError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .identities import EntryId, EventId


class InvalidEventError(ValueError):
    """Raised for an event that cannot be published as it is; the message says what to change."""


class EventReusedError(InvalidEventError):
    """Raised when the source has published the event id before with other content. Nothing was published.

    `entry_id` is the entry of the first event.
    """

    def __init__(self, source: str, event_id: EventId, entry_id: EntryId) -> None:
        super().__init__(intake.reused(source, event_id))
        self.source = source
        self.event_id = event_id
        self.entry_id = entry_id


class EventsReusedError(InvalidEventError):
    """Raised when some of several events have ids that belong to other content. Nothing was published."""

    def __init__(self, source: str, reused: Mapping[int, EventId]) -> None:
        """`reused`: the ids by the numbers of the events in the list, from 0."""
        self.sentences = {number: intake.reused(source, event_id) for number, event_id in reused.items()}
        """By the number of the event: what is wrong with it."""
        super().__init__("; ".join(self.sentences.values()))


class EventTooLargeError(InvalidEventError):
    """Raised for an event whose entry would have more bytes than are allowed. Nothing was published."""


class PublishRefusedError(Exception):
    """Raised when there is no room now. Nothing was published; try again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PublishUnknownError(RedisError):
    """Raised when the event is written, but too few replicas have it: a fail-over now would lose it.

    Publish it again with the same `event_id`: if it is still there, that waits for the replicas again.
    """

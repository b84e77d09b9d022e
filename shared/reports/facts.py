"""Defines what a session's report needs: facts of the session itself, and of its dead photos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from events.identities import SessionId

if TYPE_CHECKING:
    from events.types import SessionCompleted


class DeadPhoto(Protocol):
    """Hold what the page needs of a dead letter; `shared.operations.dead_letters` provides it."""

    @property
    def agent(self) -> str:
        """Return the agent at which the photo died."""

    @property
    def reason(self) -> str:
        """Return ``exhausted``, ``permanent``, ``undecodable`` or ``delivery_limit``."""

    @property
    def cause(self) -> str:
        """Return the code of what was to blame (`shared.retry.errors.because`); '' if none was recorded."""

    @property
    def message(self) -> str:
        """Return the error's sentence."""

    @property
    def photo_id(self) -> str | None:
        """Return the photo's id, if its entry could be read."""

    @property
    def file_name(self) -> str | None:
        """Return the photo's name, if its entry could be read."""

    @property
    def entry_id(self) -> str:
        """Return the dead letter's stream entry id."""

    @property
    def failed_at(self) -> float:
        """Return when the photo died, as Unix time in seconds."""


class PostponedPhoto(msgspec.Struct, frozen=True, kw_only=True):
    """Hold why a photo of the session waits, and until when."""

    name: str
    """Its file name, else its id."""
    agent: str
    reason: str
    attempts: int
    until: float
    """Unix time in seconds."""


class SessionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what is known of the session itself."""

    session_id: SessionId
    completion: int = 0
    """Which completion this report belongs to; 0: the session is not complete."""
    expected: int | None = None
    counters: dict[str, int] = {}
    postponed: list[PostponedPhoto] = []
    created_at: float | None = None
    """Unix time in seconds, as is `completed_at`."""
    completed_at: float | None = None

    @property
    def photos(self) -> int:
        """Count its photos: those that were announced, or those that came where these are more."""
        return max(self.expected or 0, self.counters.get("received", 0))

    @classmethod
    def of(cls, event: SessionCompleted) -> SessionFacts:
        """Return the facts of a completed session."""
        return cls(
            session_id=event.session_id,
            completion=event.completion,
            expected=event.expected,
            counters=event.counters,
            created_at=event.created_at,
            completed_at=event.completed_at,
        )

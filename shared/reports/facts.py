"""What a session's report needs to know: the session itself, and its dead photos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from events.identities import SessionId

if TYPE_CHECKING:
    from events.types import SessionCompleted


class DeadPhoto(Protocol):
    """What the page needs of a dead letter (`shared.operations.dead_letters` has them)."""

    @property
    def agent(self) -> str:
        """Where it died."""

    @property
    def reason(self) -> str:
        """``exhausted``, ``permanent``, ``undecodable`` or ``delivery_limit``."""

    @property
    def message(self) -> str:
        """The error's sentence."""

    @property
    def photo_id(self) -> str | None:
        """The photo's id, if its entry could be read."""

    @property
    def file_name(self) -> str | None:
        """The photo's name, if its entry could be read."""

    @property
    def entry_id(self) -> str:
        """The dead letter's stream entry id."""

    @property
    def failed_at(self) -> float:
        """Unix time in seconds."""


class SessionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the session itself."""

    session_id: SessionId
    completion: int = 0
    """Which completion this report belongs to; 0: the session is not complete."""
    expected: int | None = None
    counters: dict[str, int] = {}
    created_at: float | None = None
    """Unix time in seconds, as is `completed_at`."""
    completed_at: float | None = None

    @classmethod
    def of(cls, event: SessionCompleted) -> SessionFacts:
        """The facts of a completed session."""
        return cls(
            session_id=event.session_id,
            completion=event.completion,
            expected=event.expected,
            counters=event.counters,
            created_at=event.created_at,
            completed_at=event.completed_at,
        )

"""Define what every analyzer does: it takes a picture and a library's columns and returns their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from events.identities import SessionId
from events.types import FieldValue, Hints, NeedsPerson
from shared.columns import needs
from shared.columns.words import UNSURE, first_choice

if TYPE_CHECKING:
    from shared.columns.schema import Column, LibrarySchema


class PhotoContext(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what is known about a photo beside its pixels and may help to understand them.

    The file's name is not part of it, because the same picture under another name has the same answer.
    """

    hints: Hints = Hints()
    taken_at: str | None = None
    """RFC 3339, from EXIF."""
    camera: str | None = None
    width: int = 0
    """Pixels of the original as people see it, the orientation applied; 0: those of the preview."""
    height: int = 0
    session_id: SessionId | None = None
    """The session whose budget pays for the call. It is no information about the picture."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Count the tokens of an answer, as the service reports them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Return the sum."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what an analyzer found out about a photo."""

    fields: dict[str, FieldValue]
    """By internal column name, source ``vision``; every value passes `check_value`."""
    needs_person: list[NeedsPerson] = []
    usage: Usage = Usage()
    usable: bool = True
    """False if nothing could be read, or if the answer was cut off: it is not kept, and the next submission
    asks again."""
    description: str = ""
    """What the picture shows, in German, whether or not the library has a column for it."""


class Analyzer(Protocol):
    """Describe photos. `model` and `prompt_version` are part of the identity of an answer."""

    @property
    def model(self) -> str:
        """Return the model's name."""

    @property
    def prompt_version(self) -> str:
        """Return a version that changes with the question and with the rules behind the answer."""

    async def open(self) -> None:
        """Load the model or open connections. Raises SettingsError if something needed is missing."""

    async def close(self) -> None:
        """Close what `open` opened."""

    async def describe(self, preview: bytes, schema: LibrarySchema, context: PhotoContext) -> Answer:
        """Fill the columns that a picture can fill. `preview` is a JPEG without metadata."""


def unsure(column: Column, reason: str) -> FieldValue | NeedsPerson:
    """Return the honest answer for a column: its choice for "nobody knows yet", else a person must look.

    `reason` is a German sentence.
    """
    choice = first_choice(UNSURE, column.choices)
    if choice is None:
        return NeedsPerson(column=column.display_name, reason=reason, code=needs.UNSURE)
    value = [choice] if column.kind == "multi_choice" else choice
    return FieldValue(value=value, source="vision", confidence=0.0)

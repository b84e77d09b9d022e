"""Describes the columns of a SharePoint library, which the analyzer fills and the uploader writes."""

from __future__ import annotations

import hashlib
from typing import Literal, TypeAlias

import msgspec

from events.identities import SchemaDigest
from events.types import Record

ColumnKind: TypeAlias = Literal[
    "text",
    "note",
    "choice",
    "multi_choice",
    "number",
    "boolean",
    "date",
    "date_time",
    "lookup",
    "person",
    "calculated",
    "unsupported",
]
"""``note`` is text of several lines; ``unsupported`` is a column that arrived without a facet we know."""


class Column(Record, frozen=True, kw_only=True):
    """Describes one column. `name` is the internal name for Graph; people know it as `display_name`."""

    name: str
    display_name: str
    kind: ColumnKind
    description: str = ""
    choices: tuple[str, ...] = ()
    allow_other: bool = False
    """A choice column that also takes text of one's own. We never use that: choices only."""
    required: bool = False
    read_only: bool = False
    hidden: bool = False
    max_length: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    percent: bool = False
    """A number that people read as a percentage: 60 % is stored as 0.6."""
    default: str | None = None
    rich: bool = False
    """A note in HTML: SharePoint wraps its text in markup."""
    unique: bool = False
    """No two items may have the same value."""

    @property
    def writable(self) -> bool:
        """Return whether we may send a value: not hidden, not read-only, of a kind Graph lets us write."""
        return not (self.hidden or self.read_only) and self.kind not in (
            "lookup",
            "person",
            "calculated",
            "unsupported",
        )


class LibrarySchema(Record, frozen=True, kw_only=True):
    """Holds all columns of one library as they were at one moment."""

    library: str
    columns: tuple[Column, ...]
    time_zone: str = "Europe/Zurich"
    """The site's zone (IANA), in which a date-only column counts its days."""

    def digest(self) -> SchemaDigest:
        """Compute the schema's identity: the same columns have the same digest, in any order."""
        ordered = sorted(self.columns, key=lambda column: column.name)
        body = msgspec.json.encode([self.library, self.time_zone, ordered], order="deterministic")
        return SchemaDigest(hashlib.sha256(body).hexdigest())

    def column(self, name: str) -> Column | None:
        """Find the column of that internal name."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def writable(self) -> tuple[Column, ...]:
        """Return the columns we may fill, in the library's order."""
        return tuple(column for column in self.columns if column.writable)

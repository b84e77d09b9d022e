"""Defines what each tool takes. The descriptions are what an assistant knows of it."""

from __future__ import annotations

import re
import shlex
import time
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from console import durations
from console.errors import CommandError
from events import identities, topology
from events.codec import reason
from shared.delivery.dead_letter import REASONS
from shared.operations.dead_letters import DeadFilter

MAX_LIMIT: Final = 50
_ENTRY_ID: Final = re.compile(r"\d{1,19}-\d{1,19}", re.ASCII)

_CONDITIONS: Final = (
    "agent", "reason", "error_type", "fingerprint", "session", "photo", "older_than", "newer_than",
)  # fmt: skip

_Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT, description=f"How many are listed, {MAX_LIMIT} at most.")]
_Agent = Annotated[
    str | None, Meta(description="An agent.", extra_json_schema={"examples": list(topology.CONSUMERS)})
]
_Name = Annotated[str, Meta(min_length=1, max_length=500)]


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of a tool that takes none."""


class Sessions(Input, frozen=True, kw_only=True):
    """Which sessions."""

    limit: _Limit = 20


class Session(Input, frozen=True, kw_only=True):
    """One session."""

    session_id: Annotated[_Name, Meta(description="The id of the session.")]
    limit: Annotated[
        _Limit, Meta(description="How many photos are listed; those that did not end well first.")
    ] = 20


class Photo(Input, frozen=True, kw_only=True):
    """One photo."""

    photo: Annotated[_Name, Meta(description="A photo id (p-…), or a file name.")]


class Text(Input, frozen=True, kw_only=True):
    """What a person has of a photo."""

    text: Annotated[
        _Name,
        Meta(
            description="A photo id, a part of a file name, a session id, a trace id or a SharePoint address."
        ),
    ]


class Letter(Input, frozen=True, kw_only=True):
    """One dead letter."""

    id: Annotated[_Name, Meta(description="The id of the dead letter, such as 1764012345678-0.")]
    agent: Annotated[_Agent, Meta(description="The agent, if two agents have that id.")] = None


class Letters(Input, frozen=True, kw_only=True):
    """Which dead letters: all given conditions must hold."""

    agent: _Agent = None
    reason: Annotated[str | None, Meta(extra_json_schema={"enum": [*REASONS, None]})] = None
    error_type: Annotated[str | None, Meta(description="Such as HttpStatusError.")] = None
    fingerprint: Annotated[
        str | None, Meta(description="One cause, as dead_letter_groups shows it: 12 hex digits.")
    ] = None
    session: Annotated[str | None, Meta(description="A session id, or a part of one: *luzern*.")] = None
    photo: Annotated[
        str | None, Meta(description="A photo id, a whole file name, or a part of one: *luzern*.")
    ] = None
    older_than: Annotated[
        str | None, Meta(description="A duration (10m, 2h) or a time (2026-05-12T10:30, UTC).")
    ] = None
    newer_than: Annotated[str | None, Meta(description="Likewise.")] = None
    limit: _Limit = 20

    def filter(self) -> DeadFilter:
        """Return the filter, without the limit. Raises CommandError for a value that means nothing."""
        if self.reason not in (None, *REASONS):
            raise CommandError(f"there is no such reason: there are {', '.join(REASONS)}")
        return DeadFilter(
            agent=known(self.agent),
            reason=self.reason,
            error_type=self.error_type,
            fingerprint=self.fingerprint,
            session=_session(self.session),
            photo=self.photo,
            older_than=_age("older_than", self.older_than),
            newer_than=_age("newer_than", self.newer_than),
        )


class Replay(Letters, frozen=True, kw_only=True):
    """Which dead letters would be replayed."""

    all: Annotated[bool, Meta(description="All dead letters, if no filter is given.")] = False

    @property
    def command(self) -> str:
        """Return the command that a person types to replay these."""
        given = {name: getattr(self, name) for name in _CONDITIONS}
        options = [
            f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None
        ]
        return shlex.join(["erni", "dead", "replay", *(options or ["--all"])])


def read(arguments: dict[str, Any] | None, kind: type[Input]) -> Input:
    """Return the arguments of a call. Raises CommandError with what is wrong, and where."""
    try:
        return msgspec.convert(arguments or {}, kind)
    except msgspec.ValidationError as error:
        raise CommandError(f"the arguments cannot be used: {reason(error)}") from None


def known(agent: str | None) -> str | None:
    """Return an agent's name. Raises CommandError if there is no such agent."""
    if agent is not None and agent not in topology.CONSUMERS:
        raise CommandError(f"there is no such agent: there are {', '.join(topology.CONSUMERS)}")
    return agent


def entry_id(text: str) -> str:
    """Return the id of a dead letter. Raises CommandError for what is none."""
    if not _ENTRY_ID.fullmatch(text):
        raise CommandError("this is no id of a dead letter: dead_letters lists them (1764012345678-0)")
    return text


def _session(text: str | None) -> str | None:
    """Return a session id, or a part of one with a `*`. Raises InvalidIdError."""
    if not text:
        return None
    return text if "*" in text else identities.session_id(text)


def _age(name: str, text: str | None) -> float | None:
    """Return seconds before now."""
    now = time.time()
    try:
        return now - durations.moment(text, now) if text else None
    except ValueError as error:
        raise CommandError(f"{name}: {error}") from None


def schema(kind: type[Input]) -> dict[str, Any]:
    """Return the JSON schema of the arguments."""
    _, components = msgspec.json.schema_components([kind])
    found: dict[str, Any] = components[kind.__name__]
    return {name: value for name, value in found.items() if name not in ("title", "description")}

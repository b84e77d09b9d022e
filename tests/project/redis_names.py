"""What a run left or passed through in Redis, with placeholders where ids are."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from events.topology import AGENTS, TYPES
from tests.project.json_paths import paths_of
from tests.project.public_run import FIXED_IDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.project.public_run import Seen
    from tests.project.redis_monitor import Command

_KINDS: Final = {"h": "hash", "x": "stream", "z": "sorted set", "s": "string", "g": "string", "i": "string"}
"""By the first letter of a command that is of that kind alone."""
_KIND_COMMANDS: Final = re.compile(
    r"h(set|get|incr|mget|len|del|keys|vals|exists).*|x(add|read|len|range).*|z.*|set|get|incr(by)?"
)
_PLAIN: Final = (
    # a lane has the keys of LANES=1 behind its hash tag
    (re.compile(r"(?<=erni:)\{\d+\}:"), ""),
    (re.compile(r"\d{4}-\d\d-\d\d"), "<date>"),
    (re.compile(r"[0-9a-f]{16,}"), "<digest>"),
    (re.compile(r"\d{10,}-\d+"), "<entry id>"),
)
_EVENT_STREAM: Final = re.compile(f"erni:({'|'.join(map(re.escape, TYPES))})")
_AGENT: Final = re.compile(rf"(?<![a-z_])({'|'.join(AGENTS)})(?![a-z_])")


def redis_names(seen: Seen) -> dict[str, set[str]]:
    """Keys with their kinds, fields and JSON; attributes of events; consumers; names of connections."""
    ids = _ids(seen.commands)
    found: dict[str, set[str]] = {
        "redis keys": set(),
        "event attributes": set(),
        "redis consumers": set(seen.consumers),
        "redis connections": set(),
    }
    for command in seen.commands:
        if command.name == "client" and command.arguments[0].lower() == "setname":
            found["redis connections"].add(_AGENT.sub("<agent>", command.arguments[1]))
        for key in command.keys:
            if not key.startswith("erni:"):
                continue
            if _EVENT_STREAM.fullmatch(key):
                found["event attributes"] |= {name for name, _ in command.fields}
            found["redis keys"] |= set(_names(command, key, ids))
    return found


def _names(command: Command, key: str, ids: dict[str, str]) -> Iterator[str]:
    path = _plain(key, ids)
    yield path
    if _KIND_COMMANDS.fullmatch(command.name):
        yield f"{path} ({_KINDS[command.name[0]]})"
    if _EVENT_STREAM.fullmatch(key):
        return
    for name, value in command.fields:
        field = f"{path} {_plain(name, ids)}"
        yield field
        for below in _json_paths(value):
            yield f"{field}: {_plain(below, ids)}"
    if command.name == "set":
        yield from (f"{path}: {_plain(below, ids)}" for below in _json_paths(command.arguments[1]))


def _json_paths(text: str) -> Iterator[str]:
    """The keys of a value that is JSON, be it behind a number."""
    found = re.fullmatch(r"(?:[\d.]+ )?([{\[].*)", text, re.DOTALL)
    if found:
        try:
            yield from paths_of(json.loads(found[1]))
        except json.JSONDecodeError:
            return


def _ids(commands: list[Command]) -> dict[str, str]:
    """The ids of this run and what stands for each."""
    ids = dict(FIXED_IDS)
    for command in commands:
        key = command.arguments[0] if command.arguments else ""
        for name, value in command.fields:
            if key.startswith("erni:processes:"):
                ids[name] = "<consumer>"
            elif _EVENT_STREAM.fullmatch(key) and name in ("id", "source", "data"):
                if name == "id":
                    ids[value] = "<event>"
                elif name == "source":
                    # as a marker's key holds it; a word such as `erni` stands in every key
                    if (quoted := quote(value, safe="")) != value:
                        ids[quoted] = "<source>"
                else:
                    ids |= _photo_ids(value)
    # a longer one may have a shorter one in it
    return dict(sorted(ids.items(), key=lambda pair: -len(pair[0])))


def _photo_ids(data: str) -> dict[str, str]:
    found = json.loads(data).get("photo_id")
    return {found: "<photo>"} if found else {}


def _plain(text: str, ids: dict[str, str]) -> str:
    for known, placeholder in ids.items():
        text = text.replace(known, placeholder)
    for pattern, placeholder in _PLAIN:
        text = pattern.sub(placeholder, text)
    return _AGENT.sub("<agent>", text)

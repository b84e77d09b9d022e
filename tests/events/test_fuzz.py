"""Whatever stands in an entry, decoding it gives an event or says why not."""

from __future__ import annotations

import os
import random
from typing import Final

import msgspec
import pytest

from events import codec, topology
from tests.events.hostile import Hostile, mutated
from tests.events.samples import sample

ENTRIES: Final = int(os.environ.get("ERNI_FUZZ", "10000"))
"""Entries in all; ``ERNI_FUZZ=200000`` is the whole run of docs/events.md."""
pytestmark = pytest.mark.slow


def wire(fields: list[str | bytes]) -> list[bytes]:
    return [part if isinstance(part, bytes) else part.encode() for part in fields]


@pytest.mark.parametrize("name", topology.TYPES)
def test_a_changed_event_is_an_event_or_undecodable(name: str) -> None:
    rng = random.Random(f"changed {name}")
    events, sentences = 0, []
    for number in range(ENTRIES // len(topology.TYPES)):
        entry = mutated(name, rng)
        try:
            envelope = codec.decode(name, "1-1", entry)
        except codec.UndecodableError as error:
            sentences.append(str(error))
            continue
        events += 1
        # the next reader decodes what this one would write of it
        again = codec.decode(
            name,
            "1-2",
            wire(
                codec.encode(
                    envelope.event,
                    event_id=f"e-{number}",
                    source="test",
                    photo_id=envelope.photo_id,
                    session_id=envelope.session_id,
                    steps=envelope.steps,
                    extras=envelope.extras,
                )
            ),
        )
        assert again.event == envelope.event
        assert (again.photo_id, again.session_id) == (envelope.photo_id, envelope.session_id)
        codec.read_steps(envelope.steps)
    assert all(20 < len(sentence) < 600 for sentence in sentences)
    # both kinds were there
    assert 0 < events < ENTRIES // len(topology.TYPES)


def test_hostile_entries_are_told_from_events() -> None:
    hostile = Hostile(seed=1)
    for number in range(ENTRIES // 4):
        entry, is_event = hostile.draw(number)
        try:
            codec.decode("photo.submitted", "1-1", entry)
        except codec.UndecodableError:
            assert not is_event, entry
        else:
            assert is_event, entry


@pytest.mark.parametrize("name", topology.TYPES)
def test_a_field_more_in_any_place_is_ignored(name: str) -> None:
    """A newer process may add a field anywhere; an older one must not stumble over it."""
    event = sample(name)
    plain = msgspec.to_builtins(event)
    added = _with_a_field_more(plain)
    assert added != plain
    envelope = codec.decode(name, "1-1", [b"data", msgspec.json.encode(added)])
    assert envelope.event == event


def _with_a_field_more(tree: object) -> object:
    """The tree with another field in every mapping that is no table of names chosen elsewhere."""
    if isinstance(tree, list):
        return [_with_a_field_more(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    inner = {
        name: {key: _with_a_field_more(value) for key, value in child.items()}
        if name in ("fields", "verdicts", "counters")
        else _with_a_field_more(child)
        for name, child in tree.items()
    }
    return inner | {"since_next_year": {"deep": [1, None, {"x": "y"}]}}

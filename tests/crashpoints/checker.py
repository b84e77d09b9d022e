"""What must be true when a run is over, whatever happened in it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from events import codec, topology
from events.types import PhotoValidated
from tests.crashpoints.look import KEYS, entries_since
from tests.key_leaks import leaked_keys

if TYPE_CHECKING:
    from redis import Redis

    from sandbox.sharepoint.model import Effect
    from tests.crashpoints.look import State
    from tests.crashpoints.world import Photo

ENDED = {"photo.submitted": 1, "photo.failed": 0} | {
    name: 1 for stage in topology.PIPELINE for name in (*stage.reads, *stage.writes)
}
"""Entries that one photo in a session of its own adds to each stream."""


def check(
    redis: Redis,
    photo: Photo,
    before: State,
    after: State,
    effects: list[Effect],
    *,
    asked: int,
    agent: str,
    most_asked: int,
) -> list[str]:
    """What is wrong, a sentence each. `before`: as it was before the photo was published."""
    wrong: list[str] = []
    for name, wanted in ENDED.items():
        added = after.added(name) - before.added(name)
        if added != wanted:
            wrong.append(f"{name} got {added} entries, {wanted} is right")
    for name, stream in after.streams.items():
        if name not in topology.PUBLIC and (stream.length or stream.pending):
            wrong.append(f"{name} still holds {stream.length} entries, {stream.pending} of them pending")
    for name, state in after.agents.items():
        if state.dead or state.delayed:
            wrong.append(f"{name} has {state.dead} dead letters and {state.delayed} postponed entries")
    if left := after.names_of(agent):
        wrong.append(f"{agent} has no process and still the consumers {', '.join(sorted(left))}")
    wrong += _events(
        redis,
        photo,
        after.added(topology.VALIDATED) - before.added(topology.VALIDATED),
        uploaded_twice=agent == "sharepoint_uploader",
    )
    wrong += _session(redis, photo)
    wrong += _effects(effects)
    if not 1 <= asked <= most_asked:
        wrong.append(f"the analyzer was asked {asked} times, 1 to {most_asked} is right")
    if leaked := leaked_keys(redis):
        wrong.append(f"keys without a time to live: {', '.join(leaked)}")
    return wrong


def _events(redis: Redis, photo: Photo, count: int, *, uploaded_twice: bool) -> list[str]:
    wrong: list[str] = []
    for fields in entries_since(redis, topology.VALIDATED, count):
        flat = [part for pair in fields.items() for part in pair]
        envelope = codec.decode(topology.VALIDATED, "1-0", flat)
        event = envelope.event
        assert isinstance(event, PhotoValidated)
        if event.photo_id != photo.photo_id or event.sha256 != photo.sha256:
            wrong.append(f"photo {event.photo_id} was validated, {photo.photo_id} was submitted")
        if envelope.traceparent[3:35] != photo.trace:
            wrong.append(f"the trace broke: {envelope.traceparent!r} is not in {photo.trace}")
        steps = [step.agent for step in codec.read_steps(envelope.steps)]
        if steps != list(topology.AGENTS):
            wrong.append(f"the steps are {steps}")
        # a delivery that came to its end without being settled leaves the next one nothing to do
        if event.item.outcome not in (("created", "unchanged") if uploaded_twice else ("created",)):
            wrong.append(f"the item was {event.item.outcome}, not created")
        if any(not verdict.same for verdict in event.verdicts.values()):
            wrong.append(f"fields differ: {msgspec.json.encode(event.verdicts).decode()}")
    return wrong


def _session(redis: Redis, photo: Photo) -> list[str]:
    found = redis.hgetall(KEYS.session(photo.session_id))
    session = {name.decode(): value.decode() for name, value in found.items()}  # type: ignore[union-attr]
    counted = {"received": "1", "validated": "1", **dict.fromkeys(topology.AGENTS, "1")}
    counted |= {"completion": "1", "status": "completed", "expected": "1", "dead": "0", "postponed": "0"}
    return [
        f"the session says {name}={session.get(name)}, a recount {value}"
        for name, value in counted.items()
        if session.get(name, "0") != value
    ]


def _effects(effects: list[Effect]) -> list[str]:
    kinds = Counter(effect.effect for effect in effects)
    items = {effect.item_id for effect in effects if effect.item_id}
    wrong = []
    if kinds["upload"] != 1 or len(items) != 1:
        wrong.append(f"SharePoint has {len(items)} items of the picture after {dict(kinds)}")
    if kinds["deleted"] or kinds["renamed"]:
        wrong.append(f"SharePoint saw {dict(kinds)}")
    changed = Counter(name for effect in effects for name in effect.changed or ())
    if twice := [name for name, times in changed.items() if times > 1]:
        wrong.append(f"fields changed more than once: {', '.join(twice)}")
    return wrong

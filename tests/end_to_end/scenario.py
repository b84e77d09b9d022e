"""What has to be true of a library after a session, read from the stand-in's folder and its effect log."""

from __future__ import annotations

import hashlib
import io
import random
import signal
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
from PIL import Image

from events.topology import stage_of
from shared.columns.schema import LibrarySchema
from shared.sharepoint.fields import from_graph, is_empty, same
from tests.end_to_end.system import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from events.types import PhotoValidated
    from tests.end_to_end.system import Outcome, System


def pictures(folder: Path, number: int, *, seed: str) -> list[str]:
    """Write small photos that nobody else has; their names. The same seed writes the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for index in range(number):
        noise = random.Random(f"{seed} {index}").randbytes(16 * 12 * 3)
        image = Image.frombytes("RGB", (16, 12), noise).resize((320, 240), Image.Resampling.BICUBIC)
        target = io.BytesIO()
        image.save(target, "JPEG")
        names.append(f"{seed}_{index:03}.jpg")
        (folder / names[-1]).write_bytes(target.getvalue())
    return names


def all_stored(system: System, outcome: Outcome, names: Iterable[str]) -> None:
    """Every photo is validated once and is one item, with the original's bytes and every field."""
    assert outcome.names == sorted(names)
    items = {item.id: item for item in system.items()}
    stored = [photo.item.item_id for photo in outcome.validated]
    assert len(set(stored)) == len({photo.sha256 for photo in outcome.validated}) == len(outcome.validated)
    contents = Counter(item.content.sha256 for item in items.values() if item.content)
    for photo in outcome.validated:
        item = items[photo.item.item_id]
        assert contents[photo.sha256] == 1, "the picture is in the library once"
        assert item.content is not None
        assert item.content.sha256 == photo.sha256
        lies = system.folder / "graph" / "library" / photo.library.library / item.name
        assert hashlib.sha256(lies.read_bytes()).hexdigest() == photo.sha256
        assert lost_fields(system, photo) == {}
    created = Counter(
        effect.item_id
        for effect in system.effects()
        if effect.effect in ("upload", "session_finished") and effect.outcome == "created"
    )
    assert all(created[item_id] <= 1 for item_id in stored), "nothing was made twice"


def lost_fields(system: System, photo: PhotoValidated) -> dict[str, object]:
    """What was found for a photo and is not stored: by column, what is there instead."""
    schema = schema_of(system, photo)
    item = next(item for item in system.items() if item.id == photo.item.item_id)
    stored = from_graph(schema, item.fields)
    lost: dict[str, object] = {}
    for name, field in photo.fields.items():
        column = schema.column(name)
        if not is_empty(field.value) and (column is None or not same(column, field.value, stored.get(name))):
            lost[name] = stored.get(name)
    return lost


def schema_of(system: System, photo: PhotoValidated) -> LibrarySchema:
    """The columns that a photo was described by."""
    path = system.store / photo.schema_ref.removeprefix("store:")
    return msgspec.json.decode(path.read_bytes(), type=LibrarySchema)


def stopped_with_work_in_hand(system: System, agent: str, photos: int, session: str = "") -> None:
    """Stop the process at a moment when it has read entries and not settled them."""
    session = session or agent
    stream, process = KEYS.stream(stage_of(agent).reads[0]), system.processes[agent]
    while True:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGSTOP)
        if system.redis.xpending(stream, agent)["pending"]:
            return
        done = int(system.redis.hget(KEYS.session(session), agent) or 0)
        assert done < photos, "it was never seen with anything in hand"

"""From a published folder to validated items, against the stand-in's strictest mode; then all of it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from sandbox import samples
from shared.reports.photo_report import PhotoReport
from shared.settings import Settings
from tests.end_to_end import scenario
from tests.end_to_end.system import KEYS, System

if TYPE_CHECKING:
    from collections.abc import Iterator

    from events.types import PhotoValidated
    from sandbox.sharepoint.model import Item
    from tests.end_to_end.system import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Random 429 and 503, slow answers, stale eTags, sessions that expire, columns without a facet."""
    with System(tmp_path_factory.mktemp("strict"), graph=("--strict", "--seed", "5")) as system:
        yield system


def _published(system: System, session: str) -> Outcome:
    system.erni("publish", str(system.photos), "--session", session, "--project", "Wohnhaus Seewen")
    return system.wait(session, 150)


def test_forty_photos_get_through_the_strictest_mode_and_again_cost_nothing(strict: System) -> None:
    cache = Path(Settings().cache_dir).expanduser()
    written = samples.prepare(strict.photos, cache=cache, photos=40)
    first = _published(strict, "first")
    scenario.all_stored(strict, first, [path.name for path in written.good])
    assert {dead.file_name for dead in first.dead} == {path.name for path in written.broken}
    assert all(dead.reason == "permanent" for dead in first.dead)
    assert len(strict.items()) == 40
    assert strict.vision_calls() >= 40

    calls, sequence = strict.vision_calls(), strict.sequence
    second = _published(strict, "second")
    scenario.all_stored(strict, second, [path.name for path in written.good])
    assert {photo.item.outcome for photo in second.validated} == {"unchanged"}
    assert all(photo.analysis.cached for photo in second.validated)
    assert strict.vision_calls() == calls
    assert strict.uploads(sequence) == []
    assert len(strict.items()) == 40


_PROJECT = ("--project", "Wohnhaus Seewen")
_EDITS = {"Holzart": "Fichte", "Beschreibung": "Von Hand geschrieben.", "Title": None}


def _edited(system: System, photo: PhotoValidated) -> Item:
    item = next(item for item in system.items() if item.id == photo.item.item_id)
    system.edit(item, _EDITS)
    return item


def _kept(system: System, photo: PhotoValidated, sequence: int) -> None:
    """What a person wrote is there, and nobody of ours wrote since."""
    item = next(item for item in system.items() if item.id == photo.item.item_id)
    assert {name: item.fields.get(name) for name in _EDITS} == _EDITS
    ours = [effect for effect in system.effects(sequence) if effect.by == "app"]
    assert [effect for effect in ours if effect.item_id == item.id] == []


def _told(system: System, photo: PhotoValidated) -> None:
    """The differences are in the event and in the report, as a person's doing."""
    differing = {name for name, verdict in photo.verdicts.items() if not verdict.same}
    assert differing == _EDITS.keys()
    path = system.store / photo.report_ref.removeprefix("store:")
    report = msgspec.json.decode(path.read_bytes(), type=PhotoReport)
    causes = {line.column: line.cause for line in report.fields if not line.same}
    assert causes == dict.fromkeys(_EDITS, "edited")
    assert (photo.verdict, photo.needs_person) == ("ok", [])


def test_what_a_person_edited_is_never_overwritten(system: System) -> None:
    folder = system.photos / "edited"
    (name,) = scenario.pictures(folder, 1, seed="edited")
    system.erni("publish", str(folder), "--session", "edited-1", *_PROJECT)
    (photo,) = system.wait("edited-1").validated
    _edited(system, photo)

    # a second submission
    sequence = system.sequence
    system.erni("publish", str(folder), "--session", "edited-2", *_PROJECT)
    (again,) = system.wait("edited-2").validated
    assert (again.file_name, again.item.outcome) == (name, "unchanged")
    _kept(system, again, sequence)
    _told(system, again)

    # the entry once more, as after a crash between the upload and its settlement
    carried = {field: getattr(again, field) for field in again.__struct_fields__ if field not in _ADDED_LATER}
    stream = KEYS.stream("photo.analyzed")
    before = system.redis.xlen(KEYS.stream("photo.validated"))
    data = msgspec.json.encode(carried | {"needs_person": []})
    system.redis.xadd(stream, {"data": data, "subject": again.photo_id})
    redelivered = _next_validated(system, before)
    _kept(system, redelivered, sequence)
    _told(system, redelivered)


_ADDED_LATER = frozenset({"item", "verdicts", "verdict", "report_ref", "steps"})


def _next_validated(system: System, before: int) -> PhotoValidated:
    """The photo that is validated after so many."""
    from events.types import PhotoValidated

    stream = KEYS.stream("photo.validated")
    while system.redis.xlen(stream) <= before:
        last = system.redis.xrevrange(stream, count=1)[0][0]
        system.redis.xread({stream: last}, block=1000)
    (newest,) = system.redis.xrevrange(stream, count=1)
    return msgspec.json.decode(newest[1][b"data"], type=PhotoValidated)


def test_a_replay_overwrites_nothing_either(system: System) -> None:
    folder = system.photos / "replayed"
    scenario.pictures(folder, 1, seed="replayed")
    system.end("validation_reporter")
    try:
        sequence = system.sequence
        system.erni("publish", str(folder), "--session", "replayed", *_PROJECT)
        uploaded = KEYS.stream("photo.uploaded")
        while not system.redis.xlen(uploaded):
            system.redis.xread({uploaded: "0-0"}, block=1000)
        (item_id,) = {effect.item_id for effect in system.effects(sequence) if effect.effect == "upload"}
        system.fault("sharepoint", kind="400", match=f"/items/{item_id}")
    finally:
        system.start("validation_reporter")
    died = system.wait("replayed")
    assert [dead.agent for dead in died.dead] == ["validation_reporter"]
    system.heal()
    item = next(item for item in system.items() if item.id == item_id)
    system.edit(item, _EDITS)
    sequence = system.sequence
    assert system.erni("dead", "replay", "--session", "replayed")["replayed"] == 1
    (photo,) = system.wait("replayed").validated
    _kept(system, photo, sequence)
    _told(system, photo)

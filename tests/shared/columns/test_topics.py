from __future__ import annotations

import pytest

from shared.columns.schema import Column
from shared.columns.topics import SYNONYMS, topic_of
from shared.columns.words import fold


@pytest.mark.parametrize(
    ("name", "display_name", "topic"),
    [
        ("Gepr_x00fc_ft", "Geprüft", "reviewed"),
        ("Gepr_x00fc_ft", "Erledigt?", "reviewed"),
        ("field_7", "AUFNAHMEDATUM", "taken_at"),
        ("field_8", "Gebaeudetyp", "building_type"),
        ("Title", "Titel", "title"),
        ("Ortsteil", "Ortsteil", None),
        ("Projektleiter", "Projektleiter", None),
    ],
)
def test_a_column_is_known_by_either_name(name: str, display_name: str, topic: str | None) -> None:
    assert topic_of(Column(name=name, display_name=display_name, kind="text")) == topic


def test_no_name_stands_for_two_topics() -> None:
    names = [fold(name) for names in SYNONYMS.values() for name in names]
    doubles = {name for name in names if names.count(name) > 1}
    topics = {
        name: {topic for topic, all_ in SYNONYMS.items() if name in map(fold, all_)} for name in doubles
    }
    assert {name: found for name, found in topics.items() if len(found) > 1} == {}

"""The dead-code check finds what nothing uses, and says when an exception is not needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.dead_code import dead_names

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """\
class Record:
    field: int
    LIMIT = 3

    def forgotten(self):
        self.written = 1

    def called(self):
        return 2


print(Record().called())
parser = make_parser()
parser.formatter = print
"""


@pytest.fixture
def product(tmp_path: Path) -> Path:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "records.py").write_text(SOURCE)
    return tmp_path


def test_names_that_nothing_uses_are_told_but_fields_and_what_is_set_on_others(product: Path) -> None:
    assert dead_names(product, {}) == [
        "events/records.py:3: unused variable 'LIMIT'",
        "events/records.py:5: unused method 'forgotten'",
        "events/records.py:6: unused attribute 'written'",
    ]


def test_an_exception_that_is_not_needed_is_told(product: Path) -> None:
    assert dead_names(product, {"LIMIT": "a", "forgotten": "b", "written": "c", "called": "d"}) == [
        "tests/dead_code.py: 'called' needs no exception: it is used, or gone"
    ]

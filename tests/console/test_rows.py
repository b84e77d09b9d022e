"""Rows: a line each, as wide as the terminal, whatever a name is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from console.rows import fitted, one_line, padded, short
from tests.console.pipeline import dies, went

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from redis import Redis

    from tests.console.conftest import Ran

_NAME = "new\nline\tand \x1b[31mred " + "x" * 180 + ".jpg"


@pytest.mark.parametrize(
    ("name", "width", "shown"),
    [
        ("a.jpg", 12, "a.jpg"),
        ("IMG_20260512_103000.jpg", 12, "IMG…3000.jpg"),
        ("写真写真写真写真.jpg", 12, "写…写真.jpg"),
    ],
)
def test_a_name_loses_its_middle_and_keeps_its_ending(name: str, width: int, shown: str) -> None:
    assert short(name, width) == shown
    assert cell_len(shown) <= width
    assert cell_len(padded(shown, width)) == width


def test_a_name_is_one_line_and_whole_where_nobody_counts_cells() -> None:
    assert one_line("a\nb\tc\r") == r"a\nb\tc\r"
    assert fitted(_NAME, None, 60) == one_line(_NAME)
    assert cell_len(fitted(_NAME, 80, 60)) <= 20
    assert cell_len(fitted(_NAME, 20, 60)) <= 12


def test_lists_have_a_line_for_each_photo_that_fits_the_terminal(
    erni: Callable[..., Ran], client: Redis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for photo in ("p-1", "p-2"):
        went(client, "schema_extractor", photo=photo)
        client.hset(f"erni:photo:{photo}", "file_name", _NAME)
    letter = dies(client, "photo_fetcher", "schema.extracted", file_name=_NAME)
    (tmp_path / "a.jpg").write_bytes(b"a picture")
    erni("publish", "a.jpg", "--session", "s1")
    monkeypatch.setenv("COLUMNS", "80")
    for words in (("photo", "list", "--session", "s1"), ("session", "show", "s1"), ("photo", "show", "p-1")):
        text = erni(*words).out
        rows = [line for line in text.splitlines() if "x.jpg" in line]
        assert len(rows) == (1 if words[1] == "show" and words[0] == "photo" else 2)
        assert all("…" in row and cell_len(row) <= 80 for row in rows)
    for others in (("dead", "list"), ("dead", "replay", "--all", "--dry-run")):
        (row,) = [line for line in erni(*others).out.splitlines() if letter in line]
        assert cell_len(row) <= 80
    document = erni("photo", "list", "--session", "s1", "--json").document
    assert [photo["file_name"] for photo in document["photos"]] == [_NAME, _NAME]

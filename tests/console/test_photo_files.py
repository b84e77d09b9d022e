"""What `erni publish` finds in what it was pointed at."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from console import photo_files
from console.errors import CommandError
from events import identities

if TYPE_CHECKING:
    from pathlib import Path


def _folder(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def test_a_folder_means_every_photo_in_it_and_below_in_order(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path,
        "b.JPG",
        "a.heic",
        "sub/c.webp",
        "sub/d.png",
        "notes.txt",
        "plan.pdf",
        ".hidden.jpg",
        ".git/e.jpg",
    )
    found = photo_files.find([str(folder)])
    assert [photo.name for photo in found.photos] == ["a.heic", "b.JPG", "sub/c.webp", "sub/d.png"]
    assert [photo.file_name for photo in found.photos] == ["a.heic", "b.JPG", "c.webp", "d.png"]
    assert found.skipped == 2
    assert found.unreadable == ()


def test_a_file_that_is_named_is_taken_whatever_its_name(tmp_path: Path) -> None:
    _folder(tmp_path, "scan")
    found = photo_files.find([str(tmp_path / "scan")])
    assert [photo.file_name for photo in found.photos] == ["scan"]


def test_an_address_keeps_its_last_part_as_the_name() -> None:
    found = photo_files.find(
        ["https://example.com/a/Sch%C3%B6n.jpg?sig=1", "store:originals/abc", "https://example.com/"]
    )
    assert [photo.file_name for photo in found.photos] == ["Schön.jpg", "abc", None]
    assert found.photos[0].url == "https://example.com/a/Sch%C3%B6n.jpg?sig=1"


def test_a_path_that_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="there is no such file or folder") as raised:
        photo_files.find([str(tmp_path / "gone")])
    assert raised.value.code == 2


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("ftp://example.com/a.jpg", "only addresses that start with http"),
        ("https://", "names no host"),
        ("http://[::1/a.jpg", "names no host"),
    ],
)
def test_an_address_that_leads_nowhere_is_wrong_usage(word: str, why: str) -> None:
    with pytest.raises(CommandError, match=why) as raised:
        photo_files.find([word])
    assert raised.value.code == 2


def test_a_file_that_cannot_be_opened_is_told_and_the_others_are_found(tmp_path: Path) -> None:
    _folder(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found = photo_files.find([str(tmp_path)])
    assert [photo.name for photo in found.photos] == ["a.jpg"]
    assert found.unreadable == ((str(tmp_path / "b.jpg"), "a link to nothing"),)


def test_a_pipe_is_told_not_waited_for_and_so_is_a_name_that_is_no_text(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / os.fsdecode(b"bad\xff.jpg")).write_bytes(b"x")
    _folder(tmp_path, "good.jpg")
    found = photo_files.find([str(tmp_path)])
    assert [photo.name for photo in found.photos] == ["good.jpg"]
    assert [why for _, why in found.unreadable] == ["its name is not UTF-8: rename it", "not a file"]


def test_an_empty_path_is_not_the_current_folder() -> None:
    with pytest.raises(CommandError, match="an empty path"):
        photo_files.find([""])


@pytest.mark.parametrize(
    ("word", "begins"),
    [
        ("Küssnacht Rohbau (Mai)", "Kuessnacht-Rohbau-Mai-2"),
        ("写真", "photos-2"),
        ("-._", "photos-2"),
        ("x" * 300, "x" * 60 + "-2"),
        ("https://user:secret@example.com/a.jpg", "example.com-2"),
    ],
)
def test_a_new_session_is_named_after_what_was_published(word: str, begins: str) -> None:
    name = photo_files.new_session_id([word])
    assert name.startswith(begins)
    assert identities.session_id(name) == name
    assert photo_files.new_session_id([word]) != name


def test_links_that_stay_in_the_folder_and_links_that_are_named_are_followed(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "album", "a.jpg", "sub/b.jpg")
    _folder(tmp_path, "c.jpg")
    (folder / "sub" / "inside.jpg").symlink_to("../a.jpg")
    (folder / "outside.jpg").symlink_to(tmp_path / "c.jpg")
    (tmp_path / "link").symlink_to(folder)
    found = photo_files.find([str(tmp_path / "link"), str(folder / "outside.jpg")])
    assert [photo.name for photo in found.photos] == ["a.jpg", "sub/b.jpg", "sub/inside.jpg", "outside.jpg"]
    assert found.leading_out == (str(tmp_path / "link" / "outside.jpg"),)

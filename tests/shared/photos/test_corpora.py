"""The count over public collections separates good photos from damaged ones, in folders and in archives."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

from tests import corpora
from tests.shared.photos.pictures import jpeg, picture, saved

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_each_photo_is_counted_and_what_the_decoders_disagree_on_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    whole = saved(picture(200, 100))
    (folder / "good.jpg").write_bytes(jpeg())
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "page.jpg").write_bytes(b"<html></html>")
    # all pixels are there, and half of the end marker
    (folder / "almost.jpg").write_bytes(whole[:-1])
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as archive:
        archive.add(folder / "good.jpg", "inside/good.jpg")
    counted = await corpora.count([folder, tmp_path / "photos.tar.gz"])
    assert counted == {"good, taken": 2, "damaged, refused": 1, "damaged, taken": 1}
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("damaged, taken: ")
    assert "almost.jpg" in line

"""The count over public collections separates good photos from damaged ones, in folders and in archives."""

from __future__ import annotations

import struct
import tarfile
import zlib
from typing import TYPE_CHECKING

from sandbox.heic import heic
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
    # all pixels are there, and half of the end marker; the second bears the name of one that was looked at
    (folder / "almost.jpg").write_bytes(whole[:-1])
    (folder / "truncated_jpeg.jpg").write_bytes(whole[:-1])
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as archive:
        archive.add(folder / "good.jpg", "inside/good.jpg")
    counted = await corpora.count([folder, tmp_path / "photos.tar.gz"])
    assert counted == {
        "good, taken": 2,
        "damaged, refused": 1,
        "damaged, taken": 2,
        "disagreed": 1,
        "disagreed, and looked at": 1,
    }
    almost, looked_at = capsys.readouterr().out.splitlines()
    assert almost.startswith("damaged, taken: ")
    assert "almost.jpg" in almost
    assert looked_at.endswith("(rightly taken: all its rows are there, and half of its end marker)")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_png_is_good_if_its_rows_are_there_whatever_stands_beside_them() -> None:
    whole = saved(picture(60, 40), "PNG")
    beside = whole[:33] + chunk(b"zTXt", b"Comment\0\7" + b"not zlib") + whole[33:]
    profile = whole[:33] + chunk(b"iCCP", b"broken")[:-1] + b"\0" + whole[33:]
    assert corpora.is_good(whole)
    assert corpora.is_good(beside)
    assert corpora.is_good(profile)
    assert not corpora.is_good(whole[: len(whole) // 2])


def test_a_heic_whose_last_box_is_cut_off_is_not_good() -> None:
    whole = heic(picture(64, 64))
    assert corpora.is_good(whole)
    assert not corpora.is_good(whole[:-200])

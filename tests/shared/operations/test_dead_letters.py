"""Alike failures have one fingerprint."""

from __future__ import annotations

import pytest

from shared.delivery.dead_letter import fingerprint


def of(message: str) -> str:
    return fingerprint("sharepoint_uploader", "permanent", "GraphError", message)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cut off after 22,701 bytes", "cut off after 9 bytes"),
        ("no column 'Bauphase'", "no column 'Holzart'"),
        ("no library «Fotos»", "no library «Bilder»"),
        ("no item 01a20f4fd2477d9187d0bdce95394370", "no item 99a20f4fd2477d9187d0bdce95394371"),
        (
            "SharePoint refused it [request-id 3f1c2b1a-aaaa-4bcd-9e0f-0a1b2c3d4e5f]",
            "SharePoint refused it [request-id 00000000-bbbb-4bcd-8e0f-0a1b2c3d4eff]",
        ),
        ("can't decode byte 0xff in position 3", "can't decode byte 0x1f in position 77"),
        ("Müller's column 'Wand' takes no text", "Müller's column 'Müller's Dach' takes no text"),
        (
            "https://photos.example.org/a/b.jpg answered 404: there is nothing",
            "https://photos.example.org/other/c%20d.jpg answered 404: there is nothing",
        ),
    ],
)
def test_details_do_not_tell_failures_apart(one: str, other: str) -> None:
    assert of(one) == of(other)


def test_the_photos_name_does_not_either() -> None:
    one, other = (
        fingerprint("a", "permanent", "X", f"the file (named {name}) is empty", file_name=name)
        for name in ("Haus (1).jpg", "Dach.JPEG")
    )
    assert one == other


def test_a_long_name_that_the_sentence_cuts_does_not_either() -> None:
    one, other = (
        fingerprint("a", "permanent", "X", f"the file (named {name[:80]}) is empty", file_name=name)
        for name in ("Dach.jpg", "Nordfassade mit Gerüst " * 9 + ".jpg")
    )
    assert one == other


def test_a_long_detail_before_the_cause_does_not_cut_the_cause_off() -> None:
    one, other = (
        fingerprint("a", "permanent", "X", f"no column '{'x' * length}': it is gone") for length in (3, 2000)
    )
    assert one == other


def test_causes_do() -> None:
    assert of("the file is empty") != of("the file is an HTML page")
    assert fingerprint("a", "permanent", "X", "m") != fingerprint("b", "permanent", "X", "m")

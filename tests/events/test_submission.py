"""Values that are wrong for any publisher are refused where every publisher passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from events import codec, submission
from events.publisher import InvalidEventError, Publisher
from events.types import Hints, PhotoSubmitted, Target

if TYPE_CHECKING:
    from redis.asyncio import Redis


def _photo(**more: Any) -> PhotoSubmitted:
    return PhotoSubmitted(**{"source_url": "store:originals/1", **more})


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (_photo(source_url=""), "source_url is empty: give an address that begins with http:"),
        (_photo(source_url=" "), "source_url is empty"),
        (_photo(source_url="http://user:geheim@localhost:99999/a"), "port that is no number from 0 to 65535"),
        (_photo(source_url="https://user:geheim@host:abc/a"), "port that is no number"),
        (_photo(source_url="https:///a.jpg"), "source_url names no host"),
        (_photo(source_url="HTTPS://[::1"), "source_url names no host"),
        (_photo(source_url="https://user:geheim@x y/a.jpg"), "source_url names no host"),
        (_photo(source_url="file://"), "source_url ends after file: and names no photo"),
        (_photo(source_url="store:"), "ends after store:"),
        (_photo(target=Target(site=" ")), "target.site is blank"),
        (_photo(target=Target(library="x" * 256)), "target.library has 256 characters; 255 are allowed"),
        (_photo(hints=Hints(project="x" * 100_000)), "hints.project has 100000 characters; 255 are allowed"),
        (_photo(hints=Hints(photographer="\t")), "hints.photographer is blank"),
        (_photo(hints=Hints(taken_at="gestern")), "taken_at 'gestern' is neither a date nor a time"),
    ],
)
async def test_a_wrong_value_is_refused_by_check_and_by_publish(
    client: Redis, redis: Redis, event: PhotoSubmitted, says: str
) -> None:
    publisher = Publisher(client)
    with pytest.raises(InvalidEventError, match=says) as refused:
        publisher.check(event)
    assert "geheim" not in str(refused.value)
    with pytest.raises(InvalidEventError, match=says):
        await publisher.publish(event)
    assert await redis.dbsize() == 0


async def test_what_may_be_said_and_what_is_left_empty_is_published(client: Redis) -> None:
    publisher = Publisher(client)
    for event in (
        _photo(hints=Hints(project="x" * 255, place="", taken_at=""), target=Target(site="")),
        _photo(source_url="HTTP://localhost:65535"),
        _photo(source_url="sharepoint:/sites/Bau/Eingang/a.jpg"),
    ):
        publisher.check(event)
        assert (await publisher.publish(event)).fresh


def test_check_refuses_what_else_publish_refuses(client: Redis) -> None:
    with pytest.raises(InvalidEventError, match="event id"):
        Publisher(client).check(_photo(), event_id="")
    with pytest.raises(InvalidEventError, match="1024 are allowed"):
        Publisher(client, max_event_bytes=1024).check(_photo(hints=Hints(text="x" * 1024)))


@pytest.mark.parametrize(
    "when",
    [
        "2026-05-12",
        "2026-05-12T10:30",
        "2026-05-12 10:30:00",
        "2026-05-12T10:30:00.25Z",
        "2026-05-12t10:30:00z",
        "2026-05-12T10:30:00+02:00",
        "1900-01-01",
        "8900-12-31T23:59:59Z",
    ],
)
def test_a_date_or_an_rfc_3339_time_is_when_a_photo_was_taken(when: str) -> None:
    assert submission.taken_at(when) == when


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("12.05.2026", "neither a date nor a time"),
        ("20260512", "neither"),
        ("2026-W20-2", "neither"),
        ("2026-05-12T10:30+2", "neither"),
        ("٢٠٢٦-05-12", "neither"),
        ("2026-05-12\n", "neither"),
        ("2026-02-31", "in no calendar"),
        ("2026-05-12T25:00", "in no calendar"),
        ("1800-01-01", "is before 1900 or after 8900, which SharePoint does not take"),
        ("9999-12-31", "is before 1900 or after 8900"),
        ("1900-01-01T00:30+02:00", "is before 1900"),
        ("0001-01-01T00:00+14:00", "is before 1900"),
        ("2026-05-12T10:30+99:00", r"has the time zone \+99:00, which there is not"),
        ("2026-05-12T10:30-02:60", "has the time zone -02:60"),
    ],
)
def test_anything_else_is_none_and_how_to_write_it_is_said(when: str, says: str) -> None:
    with pytest.raises(ValueError, match=rf"{says}.*: write 2026-05-12, 2026-05-12T10:30, or"):
        submission.taken_at(when)


def test_a_hint_that_a_publisher_without_our_code_got_wrong_costs_no_photo() -> None:
    data = msgspec.json.encode(_photo(hints=Hints(taken_at="gestern")))
    assert codec.decode("photo.submitted", "1-0", [b"data", data]).photo_id

"""Names that people know in part: what fits, what does not, and that an index finds the same."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import pytest
from redis import Redis as PlainRedis

from events import keys
from events.connection import connect
from shared.operations import letter_names
from shared.operations.activity import Person
from shared.operations.bulk import Bulk
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.operations.letter_index import LetterIndex
from tests.console.pipeline import dies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from redis.asyncio import Redis

STORED = "Erni_Referenzfoto_undatiert_a49cddb390f8.jpg"


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as made:
        yield made


@pytest.fixture
def client(redis_url: str) -> Iterator[PlainRedis]:
    with PlainRedis.from_url(redis_url, protocol=2) as client:
        yield client


@pytest.mark.parametrize(
    ("wanted", "name", "fit"),
    [
        ("A_005.jpg", "A_005.jpg", True),
        ("A_005.jpg", "a_005.jpg", False),
        ("A_005", "A_005.jpg", False),
        ("*a_005*", "A_005.jpg", True),
        ("*a_005*", "b_005.jpg", False),
        ("a_*", "A_005.jpg", True),
        ("a_*", "aa_005.jpg", False),
        ("*.JPG", "A_005.jpg", True),
        ("a*5*jpg", "A_005.jpg", True),
        ("a*5*5*jpg", "A_005.jpg", False),
        ("a_005.jpg*a_005.jpg", "a_005.jpg", False),
        ("*", "A_005.jpg", True),
        ("*", None, False),
        ("*zürich*", unicodedata.normalize("NFD", "ZÜRICH_1.jpg"), True),
        ("*[ab]_005*", "a_005.jpg", False),
        (f"*{'a*' * 200}b", "a" * 300, False),
    ],
)
def test_a_star_stands_for_any_characters(wanted: str, name: str | None, fit: bool) -> None:  # noqa: FBT001
    assert letter_names.fits(wanted, name) is fit


def test_the_name_in_sharepoint_is_read_out_of_a_message() -> None:
    assert letter_names.stored_in(f"storing '{STORED}': SharePoint answered 413 in 0.1 s") == STORED
    assert letter_names.stored_in("a.jpg: SharePoint answered 413 (request-id 0123456789ab)") == ""
    assert letter_names.stored_in(f"{'x' * 100_000} 0123456789ab.tiff2") == "0123456789ab.tiff"


def _bury(client: PlainRedis) -> None:
    for number, place in enumerate(("Luzern", "luzern", "Seewen", "Luzern")):
        dies(
            client,
            "sharepoint_uploader" if number % 2 else "photo_fetcher",
            "schema.extracted",
            photo=f"p-{number}",
            file_name=f"{place}_00{number}.jpg",
            session=f"{place}-12-nov",
            message=f"storing {STORED}: SharePoint answered 413"
            if number == 3
            else "SharePoint answered 503",
        )


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (DeadFilter(photo="*luzern*"), ["p-0", "p-1", "p-3"]),
        (DeadFilter(photo="*LUZERN*", agent="photo_fetcher"), ["p-0"]),
        (DeadFilter(photo="luzern"), []),
        (DeadFilter(photo="luzern_001.jpg"), ["p-1"]),
        (DeadFilter(session="*luzern*", photo="*3*"), ["p-3"]),
        (DeadFilter(session="luzern-12-nov"), ["p-1"]),
        (DeadFilter(session="see*", older_than=0.0), ["p-2"]),
        (DeadFilter(photo=STORED), ["p-3"]),
        (DeadFilter(photo="*A49CDDB390F8*"), ["p-3"]),
        (DeadFilter(photo="p-2"), ["p-2"]),
    ],
)
async def test_a_part_of_a_name_selects_the_same_letters_with_an_index_and_without(
    redis: Redis, client: PlainRedis, wanted: DeadFilter, found: list[str]
) -> None:
    _bury(client)
    for letters in (DeadLetters(redis), DeadLetters(redis, index=LetterIndex(redis))):
        names = [letter.photo_id async for letter in letters.find(wanted)]
        assert sorted(name or "" for name in names) == found
        assert await letters.count(wanted) == len(found)
        assert sum(group.count for group in await letters.groups(wanted)) == len(found)


async def test_a_discard_of_what_fits_a_part_of_a_name_changes_exactly_what_was_shown(
    redis: Redis, client: PlainRedis
) -> None:
    _bury(client)
    bulk = Bulk(redis, index=LetterIndex(redis))
    selection = await bulk.select(DeadFilter(photo="*luzern*"), "discard")
    dies(client, "photo_fetcher", "schema.extracted", photo="p-late", file_name="luzern_9.jpg")
    operation = await bulk.start("discard", selection, Person("me", "admin"))
    # another process drives it, which has no index
    assert len([one async for one in Bulk(redis).run(operation)]) == selection.count == 3
    left = [letter.photo_id async for letter in bulk.letters.find(DeadFilter())]
    assert sorted(name or "" for name in left) == ["p-2", "p-late"]
    archived = [one async for one in bulk.letters.find(DeadFilter(session="*luzern*"), archived=True)]
    assert len(archived) == 3


async def test_a_part_of_a_name_among_very_many_is_found_without_reading_all_letters(redis: Redis) -> None:
    """A look at 20,000 letters reads those that fit, and no others."""
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(20_000):
            words = (
                "raw",
                "x",
                "photo",
                f"p-{number}",
                "file_name",
                f"IMG_{number}.jpg",
                "reason",
                "permanent",
            )
            pipe.execute_command("XADD", keys.Keys().dead("photo_fetcher"), "*", *words)
        await pipe.execute()
    letters = DeadLetters(redis, index=LetterIndex(redis))
    assert await letters.count(DeadFilter(photo="p-1")) == 1
    before = (await redis.info("commandstats"))["cmdstat_xrange"]["calls"]
    assert await letters.count(DeadFilter(photo="*img_1999*")) == 11
    assert (await redis.info("commandstats"))["cmdstat_xrange"]["calls"] - before < 40

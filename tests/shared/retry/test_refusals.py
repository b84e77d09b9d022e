"""Photos that are all refused alike wait for a person who repairs the cause; none is blamed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.retry import policy
from shared.retry.breaker import OPEN_AFTER, Breakers
from shared.retry.classify import Kind
from shared.retry.errors import HttpStatusError, PermanentError, SetupError, aimed_at, dependency
from tests.shared.retry.test_policy import attempts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def asking(library: str, error: Exception | None) -> Callable[[], Awaitable[str]]:
    """A handler that asks SharePoint about one library."""

    async def call() -> str:
        with aimed_at("sharepoint", library):
            try:
                with dependency("sharepoint"):
                    if error is not None:
                        raise error
                    return "stored"
            except HttpStatusError as refused:
                raise PermanentError("in the agent's own words") from refused

    return call


async def kind_of(call: Callable[[], Awaitable[str]], breakers: Breakers) -> Kind | None:
    """What becomes of one more photo; None: it goes on."""
    result, _ = await attempts(call, breakers)
    return result.kind if isinstance(result, policy.Failed) else None


def refusal(status: int) -> HttpStatusError:
    return HttpStatusError(f"SharePoint answered {status}", status=status)


@pytest.mark.parametrize("status", [403, 404])
async def test_a_library_that_refuses_five_photos_in_a_row_postpones_the_rest_and_others_go_on(
    status: int,
) -> None:
    breakers = Breakers({"sharepoint"})
    kinds = [await kind_of(asking("Fotos", refusal(status)), breakers) for _ in range(OPEN_AFTER + 1)]
    assert kinds == [Kind.PERMANENT] * (OPEN_AFTER - 1) + [Kind.POSTPONE] * 2
    assert breakers.open_names == ["sharepoint/Fotos"]
    assert breakers.reasons == {"sharepoint/Fotos": "in the agent's own words"}
    assert not breakers.reading_stopped
    assert await kind_of(asking("Pläne", None), breakers) is None


async def test_an_open_library_is_asked_by_one_photo_at_a_time() -> None:
    now = 0.0
    breakers = Breakers({"sharepoint"}, clock=lambda: now)
    for _ in range(OPEN_AFTER):
        await kind_of(asking("Fotos", refusal(403)), breakers)
    asked = 0

    async def repaired() -> str:
        nonlocal asked
        with aimed_at("sharepoint", "Fotos"):
            asked += 1
            with dependency("sharepoint"):
                return "stored"

    assert await kind_of(repaired, breakers) is Kind.POSTPONE
    assert asked == 0
    now += breakers.hold("sharepoint/Fotos")
    assert await kind_of(repaired, breakers) is None
    assert asked == 1
    assert breakers.open_names == []


async def test_one_photo_that_is_stored_between_begins_the_count_again() -> None:
    breakers = Breakers({"sharepoint"})
    for _ in range(3):
        for _ in range(OPEN_AFTER - 1):
            await kind_of(asking("Fotos", refusal(404)), breakers)
        await kind_of(asking("Fotos", None), breakers)
    assert breakers.open_names == []


async def test_a_token_that_is_refused_stops_the_reading() -> None:
    breakers = Breakers({"sharepoint"})
    for _ in range(OPEN_AFTER):
        await kind_of(asking("Fotos", refusal(401)), breakers)
    assert breakers.open_names == ["sharepoint"]
    assert breakers.reading_stopped


async def test_what_is_wrong_with_one_photo_opens_nothing() -> None:
    breakers = Breakers({"sharepoint"})
    for _ in range(3 * OPEN_AFTER):
        assert await kind_of(asking("Fotos", refusal(409)), breakers) is Kind.PERMANENT
    assert breakers.open_names == []


async def test_a_setting_that_makes_every_call_fail_stops_the_reading() -> None:
    breakers = Breakers({"vision"})

    async def blind() -> str:
        with dependency("vision"):
            raise SetupError("the model takes no pictures: name one that does in VISION_MODEL")

    kinds = [await kind_of(blind, breakers) for _ in range(OPEN_AFTER)]
    assert kinds[-1] is Kind.POSTPONE
    assert breakers.reading_stopped


async def test_expired_links_of_a_source_are_about_their_photos_alone() -> None:
    breakers = Breakers({"sharepoint"})

    async def fetch() -> str:
        with dependency("source"):
            raise refusal(401)

    assert [await kind_of(fetch, breakers) for _ in range(2 * OPEN_AFTER)] == [
        Kind.PERMANENT
    ] * 2 * OPEN_AFTER
    assert breakers.open_names == []


async def test_a_library_that_answers_reads_and_refuses_writes_stays_open() -> None:
    breakers = Breakers({"sharepoint"})
    for _ in range(OPEN_AFTER):
        await kind_of(asking("Fotos", refusal(403)), breakers)
    assert breakers.is_open("sharepoint/Fotos")

    async def reads_and_fails_otherwise() -> str:
        with dependency("sharepoint", "Fotos"):
            pass
        raise PermanentError("a value does not fit")

    await kind_of(reads_and_fails_otherwise, breakers)
    assert breakers.is_open("sharepoint/Fotos")


async def test_a_target_that_nobody_met_for_long_is_forgotten() -> None:
    now = 0.0
    closed: list[tuple[str, bool]] = []
    breakers = Breakers(
        {"sharepoint"}, clock=lambda: now, on_change=lambda name, is_open: closed.append((name, is_open))
    )
    for _ in range(OPEN_AFTER):
        await kind_of(asking("Fotos", refusal(403)), breakers)
    now = 599.0
    assert breakers.open_names == ["sharepoint/Fotos"]
    now = 601.0
    assert breakers.open_names == []
    assert closed == [("sharepoint/Fotos", True), ("sharepoint/Fotos", False)]

"""One library fails and the others do not: only its photos wait."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from shared.retry import policy
from shared.retry.breaker import OPEN_AFTER, Breakers
from shared.retry.classify import Kind, sentence_of
from shared.retry.errors import dependency_of
from shared.retry.limit import TimeLimits
from shared.sharepoint.libraries import aimed_at_library
from shared.sharepoint.target import library_target
from tests.shared.sharepoint.test_library_settings import PLACE, library

if TYPE_CHECKING:
    from events.types import PhotoAnalyzed
    from shared.sharepoint.findings import Filed
    from tests.shared.sharepoint.desk import Desk


class _Silent:
    def retrying(self, attempt: int, wait: float, error: BaseException) -> None:
        """Say nothing."""


async def deliver(
    at: Desk, photo: PhotoAnalyzed, breakers: Breakers, *, aimed: bool = False
) -> policy.Succeeded[Filed] | policy.Failed:
    """Store a photo with the attempts that the delivery engine makes.

    `aimed`: at the photo's library, as the agent does it.
    """
    task: Any = asyncio.current_task()
    with policy.without_waiting(), TimeLimits(20.0).of(task) as limit:

        async def file(photo: PhotoAnalyzed) -> Filed:
            library = photo.library
            with aimed_at_library(library.site, library.library) if aimed else nullcontext():
                return await at.filing.file(photo)

        return await policy.attempt(
            file,
            photo,
            limit=limit,
            breakers=breakers,
            observer=_Silent(),
            stopping=asyncio.Event(),
        )


@pytest.mark.parametrize("kind", ["500", "502"])
async def test_a_library_whose_uploads_fail_stops_no_other_library(desk: Desk, kind: str) -> None:
    breakers = Breakers({"sharepoint"})
    async with library(desk, f"Krank{kind}", PLACE) as sick:
        await desk.emulator.fault(kind=kind, method="PUT", match=f"/drives/{sick.library.drive_id}/.*content")
        target = f"sharepoint/{library_target(sick.library.site, sick.library.library)}"
        for _ in range(3):
            result = await deliver(sick, await sick.photo({}), breakers)
            assert isinstance(result, policy.Failed)
            assert result.kind is Kind.POSTPONE, "no photo dies of its library"
            assert dependency_of(result.error) == target
            assert f"the library 'Krank{kind}': " in sentence_of(result.error)
            assert isinstance(await deliver(desk, await desk.photo({}), breakers), policy.Succeeded)
        assert breakers.open_names == [target]
        assert not breakers.reading_stopped
        await desk.emulator.admin("DELETE", "/fault")
        assert isinstance(await deliver(sick, await sick.photo({}), breakers), policy.Succeeded)
        assert breakers.open_names == []


@pytest.mark.parametrize(("method", "match"), [("PUT", "content"), ("PATCH", "fields"), ("POST", "createUp")])
async def test_a_full_library_says_what_to_do_whatever_could_not_be_written(
    desk: Desk, method: str, match: str
) -> None:
    breakers = Breakers({"sharepoint"})
    async with library(desk, f"Voll{method}", PLACE) as full:
        await desk.emulator.fault(
            kind="507", method=method, match=f"/drives/{full.library.drive_id}/.*{match}"
        )
        photo = await full.photo({"Ort": "Seewen"}, bytes(11_000_000) if method == "POST" else None)
        result = await deliver(full, photo, breakers, aimed=True)
        assert isinstance(result, policy.Failed)
        assert (result.kind, result.seconds) == (Kind.POSTPONE, 60)
        assert "storage quota is used up: make room or raise it" in sentence_of(result.error)
        assert f"the library 'Voll{method}'" in sentence_of(result.error)
        for _ in range(OPEN_AFTER):
            await deliver(full, photo, breakers, aimed=True)
        target = library_target(full.library.site, full.library.library)
        assert breakers.open_names == [f"sharepoint/{target}"]
        # a backlog does not ask photo by photo
        result = await deliver(full, photo, breakers, aimed=True)
        assert isinstance(result, policy.Failed)
        assert result.kind is Kind.POSTPONE
        assert "has failed several times in a row" in sentence_of(result.error)
        await desk.emulator.admin("DELETE", "/fault")

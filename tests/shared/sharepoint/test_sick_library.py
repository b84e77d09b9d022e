"""One library fails and the others do not: only its photos wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from shared.retry import policy
from shared.retry.breaker import Breakers
from shared.retry.classify import Kind, sentence_of
from shared.retry.errors import dependency_of
from shared.retry.limit import TimeLimits
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
    at: Desk, photo: PhotoAnalyzed, breakers: Breakers
) -> policy.Succeeded[Filed] | policy.Failed:
    """Store a photo with the attempts that the delivery engine makes."""
    task: Any = asyncio.current_task()
    with policy.without_waiting(), TimeLimits(20.0).of(task) as limit:
        return await policy.attempt(
            at.filing.file,
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
        result = await deliver(full, photo, breakers)
        assert isinstance(result, policy.Failed)
        assert (result.kind, result.seconds) == (Kind.POSTPONE, 900)
        assert "storage quota is used up: make room or raise it" in sentence_of(result.error)
        assert f"the library 'Voll{method}'" in sentence_of(result.error)
        await desk.emulator.admin("DELETE", "/fault")

"""Mutated photos, for some seconds; `python -m tests.shared.photos.fuzz` goes on for hours."""

from __future__ import annotations

import pytest

from tests.shared.photos.fuzz import run


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_mutated_photos_are_refused_or_taken_and_cost_no_other(seed: int) -> None:
    counted = await run(15, seed)
    assert counted["refused"] > 10
    assert counted["taken"] > 0

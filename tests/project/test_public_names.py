"""No name that people or other systems hold on to is lost, and each new one is listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.project import public_names, public_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_every_public_name_is_as_the_list_says(tmp_path: Path) -> None:
    found = public_names.collect(public_run.run(tmp_path))
    said = public_names.differences(public_names.frozen_names(), found)
    assert not said, "\n".join(said)


def test_a_name_that_is_gone_or_new_is_said_with_what_to_do() -> None:
    frozen = {"redis keys": ["erni:paused", "erni:refused"], "settings": ["LANES"]}
    found = {"redis keys": ["erni:halted", "erni:refused"], "spans": ["attribute outcome"]}
    assert public_names.differences(frozen, frozen) == []
    assert public_names.differences(frozen, found) == [
        "redis keys: 'erni:paused' is gone; people and other systems hold on to it, so give it back",
        "settings: 'LANES' is gone; people and other systems hold on to it, so give it back",
        f"redis keys: 'erni:halted' is new; if it shall stay for ever, add it by `{public_names.WRITE}`",
        f"spans: 'attribute outcome' is new; if it shall stay for ever, add it by `{public_names.WRITE}`",
    ]


def test_the_list_is_sorted_so_that_a_change_of_it_can_be_read() -> None:
    frozen = public_names.frozen_names()
    assert list(frozen) == sorted(frozen)
    assert all(names == sorted(set(names)) for names in frozen.values())

"""A stack that runs: one of its kind in a folder, addresses all or nothing, and an end that comes."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from dotenv import dotenv_values

from console.errors import CommandError
from console.running import claimed, end, unless, write_addresses

if TYPE_CHECKING:
    from pathlib import Path


def test_only_one_may_run_in_a_folder_and_the_other_is_told_who_does(tmp_path: Path) -> None:
    lock = tmp_path / "up.lock"
    with (
        claimed(lock, "erni up"),
        pytest.raises(CommandError, match=rf"runs `erni up` since .*Z \(process {os.getpid()}\) already"),
        claimed(lock, "erni up"),
    ):
        raise AssertionError("two claims at once")
    with claimed(lock, "erni up"):
        assert lock.exists()


def test_addresses_are_read_back_as_they_were_and_are_this_users_alone(tmp_path: Path) -> None:
    given = {"PHOTO_STORE_URL": "/data/Baustelle 'Süd' $HOME\\x", "REDIS_URL": "redis://127.0.0.1:6379/0"}
    write_addresses(tmp_path / "env", given, what="a test")
    assert dotenv_values(tmp_path / "env") == given
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["env"]


async def test_work_ends_when_somebody_asks_to_stop() -> None:
    asked = asyncio.Event()
    asyncio.get_running_loop().call_soon(asked.set)
    with pytest.raises(CommandError, match="interrupted before it was done") as raised:
        await unless(asked, asyncio.sleep(600))
    assert raised.value.code == 130
    assert await unless(asyncio.Event(), asyncio.sleep(0, "done")) == "done"


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.sleep(600)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end(task)
    assert swallowed == 2
    assert task.cancelled()

"""Drives the operations that people ordered, in whichever gateway process is there."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Final

import structlog

from events import scripts
from events.connection import RedisError, Trouble, trouble_of
from shared.operations.bulk import UnknownOperationError, lease_key
from shared.operations.scripts import OvertakenError, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from shared.operations.bulk import Bulk, Operation

LEASE_SECONDS: Final = 5.0
"""Seconds without its driver after which an operation goes on in another process."""
_LOOK_SECONDS: Final = 1.0
_LASTING: Final = (Trouble.NOT_SENT, Trouble.NO_PERMISSION)
"""Answers of Redis that another try does not change."""
_RENEW: Final = scripts.load("shared.operations", "renew")
_log = structlog.get_logger(__name__)


class LeaseLostError(Exception):
    """Raised when another process drives an operation, or Redis did not answer for the time of the lease."""


class BulkRunner:
    """Looks once a second for operations that nobody drives, and drives them."""

    def __init__(self, redis: Redis, bulk: Bulk) -> None:
        self._redis = redis
        self._bulk = bulk
        self._driving: dict[str, asyncio.Task[None]] = {}
        self._unreadable: set[str] = set()

    async def run(self) -> None:
        """Look and drive until cancelled; what is not finished then goes on elsewhere, or later."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            tasks = list(self._driving.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        try:
            for operation_id in await self._bulk.running():
                if operation_id not in self._driving:
                    await self._take(operation_id)
        except (RedisError, OSError) as error:
            _log.debug("operations not read", error=str(error)[:200])
        except Exception:  # noqa: BLE001 - whatever it is, the next round is to come
            # the task must live as long as the process: nothing starts it again
            _log.exception("operations not read")

    async def _take(self, operation_id: str) -> None:
        try:
            operation = await self._bulk.get(operation_id)
        except UnknownOperationError:
            return
        except Exception as error:
            if trouble_of(error) not in (None, Trouble.NOT_SENT) or isinstance(error, OSError):
                raise
            # a newer version or somebody else wrote it; said once, as it is looked at each second
            if operation_id not in self._unreadable:
                self._unreadable.add(operation_id)
                _log.warning("operation cannot be read", operation=operation_id, error=str(error)[:200])
            return
        if operation.driver != "gateway":
            return
        task = asyncio.create_task(self._drive(operation))
        self._driving[operation_id] = task
        task.add_done_callback(lambda _: self._driving.pop(operation_id, None))

    async def _drive(self, operation: Operation) -> None:
        try:
            async with lease(self._redis, operation.id) as mine:
                if not mine:
                    return
                async for _ in self._bulk.run(operation):
                    # so that one long operation does not hold up requests
                    await asyncio.sleep(0)
        except (RedisError, OSError, LeaseLostError, OvertakenError) as error:
            if trouble_of(error) in _LASTING:
                await self._fail(operation, error)
                return
            # it stays among those that run: whoever reaches Redis again goes on
            _log.info("operation interrupted", operation=operation.id, error=str(error)[:200])
        except Exception as error:  # noqa: BLE001 - one operation must not end the others
            await self._fail(operation, error)

    async def _fail(self, operation: Operation, error: Exception) -> None:
        _log.exception("operation failed", operation=operation.id)
        with contextlib.suppress(RedisError, OSError):
            await self._bulk.fail(operation.id, str(error) or type(error).__name__)


@contextlib.asynccontextmanager
async def lease(redis: Redis, operation_id: str) -> AsyncIterator[bool]:
    """Hold the lease of an operation inside the block; False if another process has it.

    Raises LeaseLostError in the block when the lease is lost. Even then no letter is acted on twice: each
    step is atomic. The lease only keeps two processes from doing the same work.
    """
    token, name = secrets.token_hex(8), lease_key(operation_id)
    milliseconds = int(LEASE_SECONDS * 1000)
    if not await write(redis, "SET", name, token, "NX", "PX", milliseconds):
        yield False
        return
    me = asyncio.current_task()
    lost = False

    async def renew() -> None:
        nonlocal lost
        try:
            while True:
                await asyncio.sleep(LEASE_SECONDS / 3)
                if not await _RENEW(redis, [name], [token, milliseconds]):
                    break
        except (RedisError, OSError):
            pass
        lost = True
        if me is not None:
            me.cancel()

    renewing = asyncio.create_task(renew())
    try:
        yield True
    except asyncio.CancelledError:
        if lost:
            raise LeaseLostError(operation_id) from None
        raise
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        with contextlib.suppress(RedisError, OSError):
            # no time left: Redis deletes it at once, so that whoever comes next need not wait
            await _RENEW(redis, [name], [token, 0])

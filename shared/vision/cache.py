"""Keep answers, so that the same question about the same picture is asked and paid once."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
from redis.exceptions import LockError

from shared.photo_store import SCHEME, BlobMissingError, BlobStore
from shared.vision.contract import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from redis.asyncio import Redis
    from redis.asyncio.lock import Lock

    from events.identities import SchemaDigest, Sha256
    from shared.vision.contract import Analyzer, PhotoContext


def answer_key(sha256: Sha256, schema_digest: SchemaDigest, analyzer: Analyzer, context: PhotoContext) -> str:
    """Return the identity of an answer: picture, columns, model, question, and the hints in the question.

    It begins with the picture's hash, so that the answers of a removed photo can be found.
    """
    # the model never sees the photographer, and whose budget pays makes no difference
    hints = msgspec.structs.replace(context.hints, photographer=None)
    sent = msgspec.structs.replace(context, hints=hints, session_id=None)
    parts = [schema_digest, analyzer.model, analyzer.prompt_version, sent]
    question = hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()
    return f"{sha256}-{question[:32]}"


class AnswerCache:
    """Keep answers as ``vision/`` blobs in the photo store, with a lock per question for duplicates."""

    def __init__(self, store: BlobStore, redis: Redis, *, lease: float) -> None:
        """`lease`: seconds after which the lock of a process that died is free."""
        self._store = store
        self._redis = redis
        self._lease = lease

    async def answer(self, key: str, ask: Callable[[], Awaitable[Answer]]) -> tuple[Answer, bool]:
        """Return the kept answer or a new one, which is kept if usable; and whether it was kept before.

        Raises what `ask` raises.
        """
        blob = f"vision/{key}.json"
        if kept := await self._kept(blob):
            return kept, True
        async with self._alone(key):
            # somebody may have asked while we waited
            if kept := await self._kept(blob):
                return kept, True
            answer = await ask()
            if not answer.usable:
                return answer, False
            # `put` would leave a blob that an older release wrote and this one cannot read
            await self._store.replace(blob, msgspec.json.encode(answer))
            return answer, False

    async def _kept(self, blob: str) -> Answer | None:
        try:
            return msgspec.json.decode(await self._store.get(SCHEME + blob), type=Answer)
        except (BlobMissingError, msgspec.ValidationError):
            return None

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        """Hold the question's lock, renewing it while the block runs."""
        lock = self._redis.lock(
            f"erni:vision:asking:{key}", timeout=self._lease, sleep=0.2, raise_on_release_error=False
        )
        async with lock:
            over = asyncio.Event()
            renewal = asyncio.create_task(self._renew(lock, over))
            try:
                yield
            finally:
                # a client that is connecting may swallow the cancellation: then this ends the loop
                over.set()
                renewal.cancel()
                await asyncio.gather(renewal, return_exceptions=True)

    async def _renew(self, lock: Lock, over: asyncio.Event) -> None:
        while not over.is_set():
            await asyncio.sleep(self._lease / 3)
            try:
                await lock.reacquire()
            except LockError:
                # this process hung for a whole lease; at worst another one pays for the same answer
                return

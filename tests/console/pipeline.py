"""What a running pipeline leaves in Redis, written by hand: processes, dead letters, photo records."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

import msgspec

from events.keys import Keys
from events.types import Step
from shared.delivery import packing
from shared.delivery.dead_letter import letter_fields
from shared.delivery.heartbeat import ProcessInfo
from shared.delivery.photo_record import record_fields
from shared.retry.attempt import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from shared.delivery.dead_letter import Reason

KEYS = Keys()
TRACEPARENT = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


def pairs(flat: list[str | bytes]) -> Iterator[tuple[str | bytes, str | bytes]]:
    """Name and value in turn, as tuples."""
    return zip(flat[::2], flat[1::2], strict=True)


def beats(client: Redis, agent: str, consumer: str = "vm-1-a", *, ago: float = 0.0, **says: Any) -> None:
    """A process of an agent that beat so many seconds ago."""
    record = ProcessInfo(
        **{
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": "1",
            "started": time.time() - 60,
            "metrics_address": "127.0.0.1:9200",
            "concurrency": 8,
            "in_hand": 0,
            **says,
        }
    )
    text = f"{(time.time() - ago) * 1000:.0f} ".encode() + msgspec.json.encode(record)
    client.hset(KEYS.processes(agent), consumer, text)


def dies(
    client: Redis,
    agent: str,
    stream: str,
    *,
    message: str = "SharePoint answered 503",
    reason: Reason = "exhausted",
    photo: str | None = "p-1",
    session: str | None = "s1",
    file_name: str | None = "a.jpg",
    fields: dict[str, str] | None = None,
    original: list[bytes] | None = None,
    deliveries: int = 1,
    attempts: int = 0,
    answer: str = "",
    cause: str = "",
) -> str:
    """A dead letter of an agent; gives its id. `original`: the entry as it came, else of `fields`."""
    packed: list[str] | list[bytes] = original or [
        part for pair in (fields or {"data": "{}"}).items() for part in pair
    ]
    letter = letter_fields(
        agent=agent,
        stream=stream,
        entry_id="1-1",
        consumer="vm-1-a",
        reason=reason,
        error_type="HttpStatusError",
        message=message,
        answer=answer,
        cause=cause,
        attempts=[
            Attempt(
                at=time.time() - 60 * (attempts - one),
                error_type="HttpStatusError",
                message=message,
                wait=0.0,
            )
            for one in range(attempts)
        ],
        deliveries=deliveries,
        photo_id=photo,
        session_id=session,
        file_name=file_name,
        traceparent=TRACEPARENT,
        replays=0,
    )
    entry: Any = {"raw": packing.pack(packed), **dict(pairs(letter))}
    dead_id: Any = client.xadd(KEYS.dead(agent), entry)
    return str(dead_id.decode())


def went(
    client: Redis, agent: str, outcome: str = "done", *, photo: str = "p-1", session: str = "s1"
) -> None:
    """An agent's part in a photo's record."""
    step = Step(agent=agent, started=1_778_581_805.0, seconds=1.5, attempts=2)
    message = "SharePoint answered 503" if outcome == "dead" else ""
    record: Any = dict(pairs(record_fields(step, outcome, message, TRACEPARENT, session, "a.jpg")))
    client.hset(KEYS.photo(photo), mapping=record)
    client.expire(KEYS.photo(photo), 100)
    client.zadd(KEYS.session_photos(session), {photo: 1})
    client.expire(KEYS.session_photos(session), 100)

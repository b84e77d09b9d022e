"""Protocol bugs made on purpose: each must turn the checker red, or the checker sees nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from events import connection
from events import scripts as event_scripts
from shared.delivery import lane_worker, packing, scripts
from tests.crashpoints.trap import _SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis


def _settle_with(old: str, new: str) -> None:
    """Change the text of settle.lua."""
    before = scripts._SETTLE.text.decode()
    assert old in before, f"settle.lua has changed: {old!r} is not in it"
    scripts._SETTLE = event_scripts.Script("settle", before.replace(old, new))
    _SCRIPTS[scripts._SETTLE.digest.encode()] = "settle"


def no_fence() -> None:
    """Whoever settles is believed: a zombie's outputs are published too."""
    _settle_with("if mine[id] ~= e.n then", "if false then")


def _outputs(keys: Sequence[str], packed: bytes) -> tuple[bytes, list[bytes], list[tuple[str, list[bytes]]]]:
    """Group, entry ids and outputs of a batch."""
    batch = packing.unpack(packed)
    outputs = [
        (keys[key - 1], fields)
        for entry in batch[b"entries"]
        if entry[b"what"] == b"done"
        for key, fields in entry.get(b"outputs", ())
    ]
    return batch[b"group"], [entry[b"id"] for entry in batch[b"entries"]], outputs


def _without_outputs(packed: bytes) -> bytes:
    batch = packing.unpack(packed)
    for entry in batch[b"entries"]:
        if entry[b"what"] == b"done":
            entry[b"outputs"] = []
    return packing.pack(batch)


def output_first() -> None:
    """Outputs go out in commands of their own before the settlement."""
    settle = scripts.settle

    async def publish_then_settle(redis: Redis, keys: Sequence[str], packed: bytes) -> scripts.Settled:
        call: Callable[..., Any] = redis.execute_command
        for key, fields in _outputs(keys, packed)[2]:
            await call("XADD", key, "*", *fields)
        return await settle(redis, keys, _without_outputs(packed))

    scripts.settle = publish_then_settle


def ack_first() -> None:
    """XACK and XDEL, unfenced, and the outputs afterwards."""
    settle = scripts.settle

    async def acknowledge_then_publish(redis: Redis, keys: Sequence[str], packed: bytes) -> scripts.Settled:
        call: Callable[..., Any] = redis.execute_command
        outputs = _outputs(keys, packed)[2]
        settled = await settle(redis, keys, _without_outputs(packed))
        for key, fields in outputs:
            await call("XADD", key, "*", *fields)
        return settled

    scripts.settle = acknowledge_then_publish


def client_retries() -> None:
    """redis-py's own repetitions, and a bare XADD."""
    make = connection.connect

    def connect(url: str, **options: Any) -> Redis:
        client = make(url, **options)
        client.connection_pool.connection_kwargs["retry"] = Retry(NoBackoff(), 3)
        return client

    lane_worker.connect = connect  # type: ignore[attr-defined]
    output_first()


def throw_away_consumer() -> None:
    """XGROUP DELCONSUMER at exit, whatever is still pending."""

    async def sign_off(self: lane_worker.LaneWorker) -> None:
        call: Callable[..., Any] = self.lane.writing.execute_command
        stage, consumer = self._runtime.stage, self._runtime.consumer
        for name in stage.streams:
            await call("XGROUP", "DELCONSUMER", self.lane.keys.stream(name), stage.agent, consumer)
        await call("HDEL", self.lane.keys.beats(stage.agent), consumer)
        await call("HDEL", self.lane.keys.processes(stage.agent), consumer)

    lane_worker.LaneWorker.sign_off = sign_off  # type: ignore[method-assign]


APPLY: Final[dict[str, Callable[[], None]]] = {
    bug.__name__: bug for bug in (no_fence, output_first, ack_first, client_retries, throw_away_consumer)
}

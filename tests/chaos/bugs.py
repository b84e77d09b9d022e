"""What a child process does otherwise than the product: a later version's field, or one deliberate bug.

The bugs are mistakes that are easily made and hard to see. Each must turn the checker red
(`test_deliberate_bugs.py`); none can be switched on from outside of the tests.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Final

import msgspec

from consumers import webhook_notifier
from events import codec, topology
from events.scripts import Script
from shared.delivery import packing, scripts
from shared.delivery.heartbeat import Watch
from shared.delivery.process import AgentProcess
from shared.delivery.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis.asyncio import Redis

    from events.types import Event
    from shared.webhooks.endpoints import Endpoint


def write_a_field_more() -> None:
    """Be a newer version: every event has a field, and every entry an attribute, that the old code lacks."""
    plain = msgspec.json.Encoder()

    class Newer:
        """In the place of the encoder."""

        def encode(self, value: Event) -> bytes:
            encoded = plain.encode(value)
            return encoded[:-1] + b',"roof_kind":"Satteldach"}' if encoded[:1] == b"{" else encoded

    original = codec.encode

    def encode(event: Event, **options: Any) -> list[str | bytes]:
        if "newer" not in str(options.get("extras", ())):
            options["extras"] = (*options.get("extras", ()), b"newerattribute", b"1")
        return original(event, **options)

    codec._ENCODER = Newer()  # type: ignore[misc,assignment]  # the one way in
    codec.encode = encode


def _rewrite(name: str, *changes: tuple[str, str]) -> None:
    """Change the text of a script. A change that finds nothing to change is a mistake of the test."""
    script: Script = getattr(scripts, name)
    text = script.text.decode()
    for before, after in changes:
        if before not in text:
            raise LookupError(f"{name}: the script holds no {before!r} any more; change the bug with it")
        text = text.replace(before, after)
    setattr(scripts, name, Script(script.name, text))


def _no_fence() -> None:
    _rewrite("_SETTLE", ("if mine[id] ~= e.n then", "if false then"))


def _maxlen() -> None:
    _rewrite(
        "_SETTLE",
        (
            "redis.pcall('XADD', KEYS[o[1]], '*', unpack(o[2]))",
            "redis.pcall('XADD', KEYS[o[1]], 'MAXLEN', '8', '*', unpack(o[2]))",
        ),
    )


def _suspects_together() -> None:
    _rewrite("_TAKE_OVER", ("elseif e[4] >= 2 then", "elseif false then"))


def _ack_first() -> None:
    """XACK and XDEL, then XADD: two steps, as in every worker that acknowledges before it publishes."""

    async def settle(redis: Redis, keys: Sequence[str], packed: bytes) -> scripts.Settled:
        batch = packing.unpack(packed)
        if any(entry[b"what"] != b"done" for entry in batch[b"entries"]):
            return await real(redis, keys, packed)
        add: Callable[..., Awaitable[Any]] = redis.execute_command
        ids = [entry[b"id"] for entry in batch[b"entries"]]
        await redis.xack(keys[0], batch[b"group"].decode(), *ids)
        await redis.xdel(keys[0], *ids)
        await asyncio.sleep(0.005)
        for entry in batch[b"entries"]:
            for key, flat in entry.get(b"outputs", ()):
                await add("XADD", keys[key - 1], "*", *flat)
        nothing: dict[str, Any] = dict.fromkeys(scripts.Settled.__struct_fields__, 0)
        return scripts.Settled(**(nothing | {"replies": {}}))

    real = scripts.settle
    scripts.settle = settle


def _unchecked_claim() -> None:
    """Take what has been pending for a moment, without asking whether its owner lives."""

    def look(self: Watch, beats: dict[str, str], owners: set[str], me: str) -> list[tuple[str, str]]:
        return [(name, beats.get(name, "")) for name in owners if name not in (me, "returned")]

    Watch.look = look  # type: ignore[method-assign]
    _rewrite("_TAKE_OVER", ("if seen ~= '*' and (redis", "if false and (redis"))


def _stillness_across_an_outage() -> None:
    def look(self: Watch, beats: dict[str, str], owners: set[str], me: str) -> list[tuple[str, str]]:
        self._looked = self._clock()
        return honest(self, beats, owners, me)

    def forget(self: Watch) -> None:
        """Go on counting."""

    honest = Watch.look
    Watch.look = look  # type: ignore[method-assign]
    Watch.forget = forget  # type: ignore[method-assign]


def _delconsumer_at_exit() -> None:
    """Sign off when told to stop, as the documentation of XGROUP DELCONSUMER invites to."""

    async def drain(self: AgentProcess) -> None:
        for loops in self._lanes:
            for name in self.runtime.stage.streams:
                key = loops.lane.keys.stream(name)
                await loops.lane.writing.xgroup_delconsumer(
                    key, self.runtime.stage.agent, self.runtime.consumer
                )
        await honest(self)

    honest = AgentProcess._drain
    AgentProcess._drain = drain  # type: ignore[method-assign]


def _group_at_dollar() -> None:
    async def make_groups(self: Reader) -> None:
        for key in self._keys:
            try:
                await self._lane.reading.xgroup_create(key, self._stage.agent, id="$", mkstream=True)
            except Exception as error:
                if "BUSYGROUP" not in str(error):
                    raise

    Reader._make_groups = make_groups  # type: ignore[method-assign]


def _notice_apart() -> None:
    """Write the notices after the settlement, in a step of their own, as everybody does without an outbox."""

    async def settle(redis: Redis, keys: Sequence[str], packed: bytes) -> scripts.Settled:
        batch = packing.unpack(packed)
        outbox = next((place for place, key in enumerate(keys, 1) if key.endswith(topology.QUEUED)), 0)
        apart = []
        for entry in batch[b"entries"]:
            outputs = entry.get(b"outputs", ())
            apart += [flat for key, flat in outputs if key == outbox]
            if outputs:
                entry[b"outputs"] = [output for output in outputs if output[0] != outbox]
        settled = await real(redis, keys, packing.pack(batch))
        add: Callable[..., Awaitable[Any]] = redis.execute_command
        await asyncio.sleep(0.1)
        for flat in apart:
            await add("XADD", keys[outbox - 1], "*", *flat)
        return settled

    real = scripts.settle
    scripts.settle = settle


def _notice_renamed() -> None:
    """Make a new webhook-id for every attempt, so that nobody can tell a repetition."""

    def headers(endpoint: Endpoint, body: bytes) -> dict[str, str]:
        named = honest(endpoint, body)
        return {**named, "webhook-id": f"{named['webhook-id']}-{secrets.token_hex(4)}"}

    honest = webhook_notifier._headers
    webhook_notifier._headers = headers


PLANT: Final[dict[str, Callable[[], None]]] = {
    "ack_before_add": _ack_first,
    "no_fence": _no_fence,
    "unchecked_claim": _unchecked_claim,
    "maxlen": _maxlen,
    "delconsumer_at_exit": _delconsumer_at_exit,
    "group_at_dollar": _group_at_dollar,
    "suspects_together": _suspects_together,
    "stillness_across_an_outage": _stillness_across_an_outage,
    "notice_apart": _notice_apart,
    "notice_renamed": _notice_renamed,
}
"""Bugs of the agents' processes by name."""
ELSEWHERE: Final = ("client_retries", "synced_every_second", "torn_log_left")
"""Bugs of the upstream (a bare XADD by a client that repeats it), and of the server's configuration."""

"""Defines the delivery (one entry from its read to its release) and what is in flight in a lane."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from events import codec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from events.codec import Envelope
    from events.types import Step
    from shared.delivery.outcome import Outcome
    from shared.telemetry.tracing import DeliverySpan


class Delivery:
    """Carry one entry through this process: down once (read, decode, handle) and back once.

    An agent may read it through `current_delivery`.
    """

    __slots__ = (
        "cancelled",
        "deliveries",
        "entry_id",
        "envelope",
        "fields",
        "handled",
        "lost",
        "outcome",
        "slots",
        "span",
        "started",
        "stream",
        "task",
        "unknown",
    )

    span: DeliverySpan
    """Set when the entry was decoded."""
    outcome: Outcome
    """How it ends; set when it goes to its settlement."""

    def __init__(self, stream: int, entry_id: str, deliveries: int, fields: list[bytes]) -> None:
        self.stream = stream
        """Index into the agent's streams."""
        self.entry_id = entry_id
        self.deliveries = deliveries
        """How often the entry was handed out, this time included."""
        self.fields = fields
        """Names and values in turn, as Redis has them."""
        self.slots = 1
        """Slots it holds: one, all of them for a suspect, none for an entry over the delivery limit."""
        self.started = 0.0
        """Unix time in seconds at which it was taken up."""
        self.handled = 0.0
        """Unix time in seconds at which its handler had ended; what follows is the work of Redis."""
        self.envelope: Envelope | None = None
        """What the entry was decoded to; None before, and for one that cannot be decoded."""
        self.task: asyncio.Task[None] | None = None
        """The task that handles it; None before, and from its settlement on: ownership is decided there."""
        self.cancelled = False
        """Its handler was cancelled: the process stops, or the entry is lost."""
        self.lost = False
        """Another process took the entry over, or another entry has its id now: nothing is settled."""
        self.unknown: list[str] | None = None
        """Names in a submission that no field has; None for what is no submission."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the steps of the agents before this one: when, how long, how many attempts."""
        return codec.read_steps(self.envelope.steps) if self.envelope and self.envelope.steps else ()

    @property
    def traceparent(self) -> str:
        """Return the W3C context of this delivery's span; '' without a trace."""
        return self.span.traceparent


class InFlight:
    """Hold the deliveries of one lane between their read and the answer to their settlement."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, str], Delivery] = {}
        self.without_slots: set[Delivery] = set()
        """Handled, not settled because the lane stands still; their slots went to the other lanes."""
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, delivery: Delivery) -> None:
        """Add a delivery. Another entry that had its id is lost: a fail-over took it away.

        The new primary lacks the last entries of the old one, and may give their ids again.
        """
        key = (delivery.stream, delivery.entry_id)
        earlier = self._held.get(key)
        if earlier is not None and earlier.fields != delivery.fields:
            _lose(earlier)
        self._held[key] = delivery
        self._empty.clear()

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Remove deliveries, except where the same entry was delivered again meanwhile."""
        held = self._held
        for delivery in deliveries:
            key = (delivery.stream, delivery.entry_id)
            if held.get(key) is delivery:
                del held[key]
        self.without_slots.difference_update(deliveries)
        if not held:
            self._empty.set()

    def holds(self, stream: int, entry_id: str) -> bool:
        """Return whether that entry is in flight."""
        return (stream, entry_id) in self._held

    def of_stream(self, stream: int) -> list[Delivery]:
        """Return the deliveries of one stream."""
        return [delivery for (index, _), delivery in self._held.items() if index == stream]

    def lose(self, stream: int, entry_id: str, deliveries: int) -> bool:
        """Cancel the handler of an entry we lost; return False if the entry is being settled or gone."""
        delivery = self._held.get((stream, entry_id))
        if delivery is None or delivery.deliveries != deliveries or delivery.task is None:
            return False
        _lose(delivery)
        return True

    def cancel_handlers(self) -> None:
        """Cancel the handlers that have not reached their settlement, so that their entries are released."""
        for delivery in self._held.values():
            if delivery.task is not None:
                delivery.cancelled = True
                delivery.task.cancel()

    async def wait_empty(self) -> None:
        """Return when nothing is in flight."""
        await self._empty.wait()


def _lose(delivery: Delivery) -> None:
    delivery.lost = True
    if delivery.task is not None:
        delivery.cancelled = True
        delivery.task.cancel()

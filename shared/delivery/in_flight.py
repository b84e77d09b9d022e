"""What a process has in hand: entries between their read and the answer to their settlement."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from shared.delivery.scripts import Claimed


class InHand:
    """One entry in hand."""

    __slots__ = ("claimed", "lost", "settling", "slots", "task")

    def __init__(self, claimed: Claimed, slots: int) -> None:
        self.claimed = claimed
        self.slots = slots
        """Slots it holds: one, or all of them for a suspect, or none for a doomed entry."""
        self.task: asyncio.Task[None] | None = None
        self.settling = False
        """Its settlement is on its way: whether it is still ours is decided there."""
        self.lost = False
        """Somebody took it over while this process stood still: the handler is cancelled, nothing settled."""


class Hands:
    """All entries in hand of one lane."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, str], InHand] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, hand: InHand) -> None:
        """Take an entry in hand."""
        self._held[hand.claimed.stream, hand.claimed.entry_id] = hand

    def release(self, hand: InHand) -> None:
        """Let go of an entry, unless the same one came into hand again meanwhile."""
        key = (hand.claimed.stream, hand.claimed.entry_id)
        if self._held.get(key) is hand:
            del self._held[key]

    def holds(self, stream: int, entry_id: str) -> bool:
        """Whether that entry is in hand."""
        return (stream, entry_id) in self._held

    def of_stream(self, stream: int) -> list[InHand]:
        """The entries of one stream."""
        return [hand for (index, _), hand in self._held.items() if index == stream]

    def lose(self, stream: int, entry_id: str, deliveries: int) -> bool:
        """Cancel the handler of an entry that is no longer ours; False if it is being settled or gone."""
        hand = self._held.get((stream, entry_id))
        if hand is None or hand.settling or hand.claimed.deliveries != deliveries or hand.task is None:
            return False
        hand.lost = True
        hand.task.cancel()
        return True

    def tasks(self) -> list[asyncio.Task[None]]:
        """The handlers at work."""
        return [hand.task for hand in self._held.values() if hand.task is not None]

    def cancel_handlers(self) -> None:
        """Cancel the handlers that have not come to their settlement: their entries are given back."""
        for hand in list(self._held.values()):
            if hand.task is not None and not hand.settling:
                hand.task.cancel()

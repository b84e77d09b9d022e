"""Writes and reads how far a client has read: one text for the positions in all streams that it listens to.

It has the newest position's milliseconds, and for each stream how many milliseconds it lies before that one
and its sequence, all in base 36: short, because a browser sends it back in a header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from console.gateway.ends import EntryNumber, Place, Positions

BEGINNING: Final = "0"
"""Stands before all that is kept."""
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_LONGEST: Final = 16
"""Characters of one number."""


def write(positions: Positions) -> str:
    """Return the text of positions."""
    newest = max(millis for millis, _ in positions.values())
    return f"{_base_36(newest)}:" + ",".join(
        _before(newest, positions[place]) for place in _sorted(positions)
    )


def read(text: str, places: Iterable[Place]) -> Positions:
    """Return the positions in these streams. Raises ValueError if the text is none for them."""
    order = _sorted(places)
    if text == BEGINNING:
        return dict.fromkeys(order, (0, 0))
    newest_text, _, rest = text.partition(":")
    newest = _number(newest_text)
    return {place: _after(newest, one) for place, one in zip(order, rest.split(","), strict=True)}


def _sorted(places: Iterable[Place]) -> list[Place]:
    return sorted(places, key=lambda place: (place[0] or 0, place[1]))


def _before(newest: int, position: EntryNumber) -> str:
    millis, sequence = position
    if position == (0, 0):
        return ""
    return _base_36(newest - millis) + (f".{_base_36(sequence)}" if sequence else "")


def _after(newest: int, text: str) -> EntryNumber:
    if not text:
        return (0, 0)
    before, _, sequence = text.partition(".")
    millis = newest - _number(before)
    if millis < 0:
        raise ValueError("a position lies before the beginning")
    return millis, _number(sequence) if sequence else 0


def _number(text: str) -> int:
    if len(text) > _LONGEST or not text.isalnum():
        raise ValueError("this is no number")
    return int(text, 36)


def _base_36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits

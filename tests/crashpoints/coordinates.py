"""Where a fault strikes: which agent, at which of its calls, on which side of it, and what happens then."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias, get_args

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Point: TypeAlias = Literal["before", "held", "no_reply", "after"]
"""``before``: nothing was sent. ``held``: sent, and applied only later, when others have gone on.
``no_reply``: applied, and the answer never comes. ``after``: answered, and nothing was done with it yet."""
Fault: TypeAlias = Literal["crash", "stall", "stop", "timeout", "cut"]
"""``crash``: SIGKILL. ``stall``: SIGSTOP until another process has finished, then SIGCONT. Three ways to
cancel: ``stop`` (SIGTERM twice), ``timeout`` (the attempt is cut off, as by HANDLE_TIMEOUT), ``cut`` (the
connection breaks and the process lives on)."""

TAKEN: Final = "XREADGROUP BLOCK taken"
"""A blocking read that brings an entry; for it the photo comes when the process already waits."""
POINTS: Final[tuple[Point, ...]] = get_args(Point)
FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)


class Call(msgspec.Struct, frozen=True, order=True):
    """One call of an agent process, numbered among those of its kind, so that timers do not shift it."""

    kind: Literal["redis", "http", "store", "vision"]
    label: str
    number: int = 1
    handling: bool = msgspec.field(default=False)
    """Whether an attempt at an entry was under way; only then there is something to time out."""

    @property
    def name(self) -> str:
        """How it is written: ``redis EVALSHA settle#1``."""
        return f"{self.kind} {self.label}#{self.number}"


class Coordinates(msgspec.Struct, frozen=True):
    """One run."""

    agent: str
    call: str
    """`Call.name`."""
    point: Point
    fault: Fault

    def __str__(self) -> str:
        return f"{self.agent}|{self.call}|{self.point}|{self.fault}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what a failing run printed. Raises ValueError."""
        parts = text.split("|")
        if len(parts) != len(cls.__struct_fields__):
            raise ValueError(f"{text!r}: expected agent|call|point|fault, as a failing run prints it")
        return msgspec.convert(dict(zip(cls.__struct_fields__, parts, strict=True)), cls)

    def choose(self, among: int) -> int:
        """A number below `among`, the same for the same coordinates: what else is varied between runs."""
        return zlib.crc32(str(self).encode()) % among


def possible(call: Call) -> Iterator[tuple[Point, Fault]]:
    """The points and faults that mean something at this call."""
    for point in POINTS:
        for fault in FAULTS:
            if fault == "timeout" and not call.handling:
                continue
            if call.label == TAKEN and point in ("before", "held"):
                # known by its answer: what comes before is struck at the read itself
                continue
            if fault == "cut" and point == "after":
                # whatever is broken after the answer is the next call's
                continue
            if call.kind in ("store", "vision") and (point in ("held", "no_reply") or fault == "cut"):
                # a file is written by the process itself: nothing is under way without it
                continue
            yield point, fault


def every(agent: str, calls: Iterable[Call]) -> list[Coordinates]:
    """All runs of an agent that makes these calls."""
    return [Coordinates(agent, call.name, point, fault) for call in calls for point, fault in possible(call)]

"""Stream entries as nobody should write them, drawn from a seed: the same seed gives the same entries."""

from __future__ import annotations

import copy
import json
import random
from typing import TYPE_CHECKING, Any, Final

import msgspec

from events import codec
from tests.events.samples import sample

if TYPE_CHECKING:
    from collections.abc import Callable

BAD_IDS: Final = (
    "a b",
    "../../etc/passwd",
    "{1}:x",
    "a:b",
    "a\nb",
    "a\x00b",
    "\x1b[2J",
    "-rf",
    "x" * 129,
    "é",
    "٣",
    "a\u202eb",
    "a/b",
)
JUNK: Final[tuple[Any, ...]] = (
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    -(2**63),
    "",
    "x" * 3000,
    "\x00",
    "\u202e",
    [],
    {},
    [[[[]]]],
    {"": {"": []}},
    [None],
    {"a": 1},
)
# What is no photo.submitted event with one of these values, field by field (and `hints`' own fields).
_WRONG: Final[dict[str, tuple[Any, ...]]] = {
    "source_url": (None, True, 1, 1.5, [], {}, ["file:/a"]),
    "photo_id": (1, True, [], {}, *BAD_IDS),
    "session_id": (1, True, [], {}, "lru", "open", *BAD_IDS),
    "file_name": (1, True, [], {}),
    "target": (1, "x", True, [], {"site": 1}, {"library": []}),
    "expected": ("3", 1.5, -1, 10**30, 2**63, 2**64, True, [], {}),
    "hints": (1, "x", True, [], {"project": 1}, {"taken_at": []}, {"text": {}}),
}
# Fields that say nothing we could rely on: an entry with them goes through.
_HARMLESS: Final = (
    (b"traceparent", b"\xff\xfe"),
    (b"traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"),
    (b"traceparent", b"00-" + b"f" * 5000),
    (b"tracestate", b"=,=,\x00" * 400),
    (b"ernisteps", b"["),
    (b"ernisteps", b"[[[[]]"),
    (b"ernisteps", b"[1]"),
    (b"ernisteps", b'[{"agent": "\xff"}]'),
    (b"ernidelayed", b"9" * 5000 + b":1:1"),
    (b"ernidelayed", b"1:" + b"9" * 400 + b":1"),
    (b"ernidelayed", b"x"),
    (b"ernireplay", b"9" * 5000),
    (b"ernireplay", b"9" * 5000 + b" 00-"),
    (b"ernireplay", b"\xff \xff"),
    (b"dataref", b"\xff" * 100),
    (b"time", b"2026-05-12T10:30:60.5+14:00"),
    (b"specversion", b"1.0"),
    (b"datacontenttype", b"image/jpeg"),
    (b"raw", b"\x93\x01"),
    (b"reason", b"permanent"),
    (b"", b""),
    (b"\xff\x00", b"\x00" * 1000),
)
Entry = list[bytes]


class Hostile:
    """Draws entries of the first stream; each says whether an agent must take it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self._bad: tuple[Callable[[], Entry], ...] = (
            self._no_data,
            self._random_data,
            self._cut_data,
            self._wrong_type,
            self._wrong_type,
            self._many_fields,
            self._not_utf8,
            self._foreign_type,
            self._twice,
            self._deep,
            self._bad_attribute,
            self._no_source,
            self._no_cloud_event,
        )

    def draw(self, number: int) -> tuple[Entry, bool]:
        """Entry `number`, and whether it is an event; then the number comes along in its field `n`."""
        if self.rng.random() < 0.1:
            return self._good(number), True
        entry = self.rng.choice(self._bad)()
        if self.rng.random() < 0.2:
            # ours or not, whatever stands beside what is wrong is kept as well
            name, value = self.rng.choice(_HARMLESS)
            if name not in entry[::2]:
                entry += (name, value)
        return entry, False

    def large(self, size: int) -> Entry:
        """An entry of `size` bytes and a little; half of them in its name, or all in its data."""
        block = self.rng.randbytes(1 << 16)
        bulk = (block * (size // len(block) + 1))[:size]
        return self.rng.choice(
            (
                [b"data", bulk],
                [bulk[: size // 2], bulk[size // 2 :], b"data", b"{}"],
                [b"data", self._json() + bulk],
            )
        )

    def _submission(self) -> dict[str, Any]:
        event: dict[str, Any] = {"source_url": f"https://example.org/{self.rng.getrandbits(40):x}.jpg"}
        more = {
            "photo_id": f"f-{self.rng.getrandbits(60):x}",
            "session_id": f"s-{self.rng.randrange(20)}",
            "file_name": "Bild «1».jpg",
            "hints": {"project": "Seewen"},
            "target": {"library": "Fotos"},
        }
        event |= {name: value for name, value in more.items() if self.rng.random() < 0.4}
        return event

    def _json(self, **changes: Any) -> bytes:
        return json.dumps(self._submission() | changes, ensure_ascii=self.rng.random() < 0.5).encode()

    def _good(self, number: int) -> Entry:
        changes: dict[str, Any] = {}
        if self.rng.random() < 0.5:
            # a newer publisher knows more than we do
            changes[f"new_{self.rng.randrange(100)}"] = self.rng.choice(JUNK)
            changes["hints"] = {"project": "Seewen", "weather": self.rng.choice(JUNK)}
        entry = [b"n", b"%d" % number, b"data", self._json(**changes)]
        for name, value in self.rng.sample(_HARMLESS, self.rng.randrange(4)):
            if name not in entry[::2]:
                entry += (name, value)
        return entry

    def _no_data(self) -> Entry:
        names = self.rng.sample(
            (b"id", b"type", b"Data", b"data ", b"payload", b"subject"), self.rng.randrange(1, 5)
        )
        return [part for name in names for part in (name, self.rng.randbytes(self.rng.randrange(40)))]

    def _random_data(self) -> Entry:
        # a leading 0xff: no JSON begins so, whatever follows
        return [b"data", b"\xff" + self.rng.randbytes(self.rng.randrange(300))]

    def _cut_data(self) -> Entry:
        data = self._json()
        return [b"data", data[: self.rng.randrange(len(data))]]

    def _wrong_type(self) -> Entry:
        name = self.rng.choice(tuple(_WRONG))
        return [b"data", self._json(**{name: self.rng.choice(_WRONG[name])})]

    def _no_source(self) -> Entry:
        event = self._submission()
        del event["source_url"]
        return [b"data", json.dumps(event).encode()]

    def _no_cloud_event(self) -> Entry:
        versions = [
            (b"specversion", version) for version in (b"0.3", b"2.0", b"1", b"", b"\xff", b"9" * 5000)
        ]
        times = [(b"time", when) for when in (b"yesterday", b"2026-02-31T00:00:00Z", b"\x00", b"9" * 5000)]
        return [*self.rng.choice((*versions, *times)), b"data", self._json()]

    def _many_fields(self) -> Entry:
        # mostly just too many; a few of ten thousand
        count = 10_000 if self.rng.random() < 0.02 else self.rng.randrange(codec.MAX_FIELDS, 300)
        return [b"data", self._json(), *(part for n in range(count) for part in (b"f%d" % n, b"%d" % n))]

    def _not_utf8(self) -> Entry:
        bad = self.rng.choice((b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x80"))
        name = self.rng.choice((b"type", b"id", b"sessionid", b"subject", b"data"))
        if name == b"data":
            return [b"data", b'{"source_url": "file:/' + bad + b'"}']
        # the attributes count where the data says nothing
        return [name, bad, b"data", b'{"source_url": "file:/a"}']

    def _foreign_type(self) -> Entry:
        kind = self.rng.choice(
            ("photo.fetched", "photo.submitted.v9", "PHOTO.SUBMITTED", "", "x" * 500, "é" * 79)
        )
        return [b"type", kind.encode(), b"data", self._json()]

    def _twice(self) -> Entry:
        entry = [b"data", self._json(), b"x", b"1"]
        again = self.rng.choice((b"data", b"x"))
        return [*entry, again, self._json()]

    def _deep(self) -> Entry:
        depth = self.rng.randrange(5_000, 40_000)
        opening, closing = self.rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
        return [b"data", b'{"source_url": "x", "more": ' + opening * depth + b"1" + closing * depth + b"}"]

    def _bad_attribute(self) -> Entry:
        name = self.rng.choice((b"subject", b"sessionid"))
        return [name, self.rng.choice(BAD_IDS).encode(), b"data", b'{"source_url": "file:/a"}']


def mutated(name: str, rng: random.Random) -> Entry:
    """A full event of that type with something changed: a value, a name, or bytes. It may still be one."""
    tree = msgspec.to_builtins(sample(name))
    for _ in range(rng.randrange(3)):
        _change(tree, rng)
    data = bytearray(json.dumps(tree).encode())
    for _ in range(rng.choice((0, 0, 1, 5))):
        at = rng.randrange(len(data))
        match rng.randrange(3):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at:]
                data += b" "
            case _:
                data[at:at] = rng.randbytes(rng.randrange(1, 4))
    entry = [b"data", bytes(data)]
    for attribute in rng.sample(
        (b"type", b"subject", b"sessionid", b"id", b"ernisteps", b"dataref"), rng.randrange(3)
    ):
        entry += (attribute, rng.choice((b"", b"p-1", b"\xff", b"a b", name.encode(), rng.randbytes(20))))
    return entry


def _change(tree: dict[str, Any], rng: random.Random) -> None:
    """Change one value somewhere in the tree, take it out, or put one beside it."""
    at: Any = tree
    while True:
        place = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
        if isinstance(at[place], dict | list) and at[place] and rng.random() < 0.6:
            at = at[place]
            continue
        break
    match rng.randrange(3):
        case 0:
            at[place] = copy.deepcopy(rng.choice(JUNK))
        case 1:
            del at[place]
        case _ if isinstance(at, dict):
            at[rng.choice(("new", "", "id", "é"))] = copy.deepcopy(rng.choice(JUNK))
        case _:
            at.append(copy.deepcopy(rng.choice(JUNK)))

"""What goes wrong on purpose: faults that somebody ordered, and in strict mode the daily ones by seed.

A client that waits as long as ``Retry-After`` asks always gets through: in strict mode one subject (an item,
else the path) is hit at most once in `_SPARED` seconds, and a client that comes back too early is refused
again, as by the real service.
"""

from __future__ import annotations

import random
import re
import time
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias

import msgspec

from sandbox.sharepoint.model import timestamp

if TYPE_CHECKING:
    from sandbox.sharepoint.journal import Journal

Kind: TypeAlias = str
"""An HTTP status 400 to 599, or ``reset``, ``slow``, ``garbage``, ``stale_etag``."""

_KIND = re.compile(r"[45]\d\d|reset|slow|garbage|stale_etag")
_DEFAULT_MATCH: Final = r"/v1\.0/|/_storage/"
_SPARED: Final = 60.0

# Strict mode: how often each daily trouble comes, as a share of the requests (of the successful writes for
# stale eTags and late hashes, of the sessions for those that die).
_SHARE_THROTTLED: Final = 0.02
_SHARE_UNAVAILABLE: Final = 0.01
_SHARE_SLOW: Final = 0.02
_SHARE_STALE: Final = 0.2
STRICT_SHARE_LATE_HASH: Final = 0.1
STRICT_SHARE_DYING_SESSION: Final = 0.1
_SLOW_SECONDS: Final = (0.2, 1.0)
_WAITS: Final = (1, 2, 3, 5, 12)
_WAIT_WEIGHTS: Final = (8, 8, 4, 2, 1)


class FaultOrder(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"seconds": "for"}
):
    """A fault as it is ordered: the body of ``POST /_erni/fault``."""

    kind: Kind
    seconds: float | None = None
    """``for``: how long; None: until it is healed."""
    times: int | None = None
    """How many requests at most."""
    share: float = 1.0
    match: str = _DEFAULT_MATCH
    """Regular expression, searched in the decoded path."""
    method: str | None = None
    when: Literal["before", "after"] = "before"
    """``after``: the request takes effect, only its answer is lost or replaced."""
    retry_after: float | None = None
    """Seconds; with 429 and 503 a value of 2 is sent if none is given, 0 sends none."""
    code: str | None = None
    """The error code in the body, where it shall be another than the status's usual one."""
    delay: float = 1.0
    """Seconds, for ``slow``."""
    more_kinds: ClassVar[frozenset[str]] = frozenset()
    """Kinds that a service of its own adds."""

    def __post_init__(self) -> None:
        if self.kind not in self.more_kinds and not _KIND.fullmatch(self.kind):
            raise ValueError(
                f"fault kind {self.kind!r}: expected a status 400 to 599, reset, slow, garbage or stale_etag"
            )
        if not 0 <= self.share <= 1:
            raise ValueError("share: expected a number from 0 to 1")
        if self.method is not None and not self.method.isupper():
            raise ValueError("method: expected an HTTP method in capitals")
        try:
            re.compile(self.match)
        except re.error as error:
            raise ValueError(f"match: not a regular expression: {error}") from None


class FaultLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fault that was injected, as it stands in ``faults.jsonl``."""

    time: str
    kind: Kind
    method: str
    path: str
    when: str = "before"
    retry_after: float | None = None
    order: int | None = None
    """The id of the ordered fault; None: a daily one of strict mode."""
    request_id: str | None = None


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """What shall happen to one request."""

    kind: Kind
    when: Literal["before", "after"] = "before"
    retry_after: float | None = None
    code: str | None = None
    delay: float = 0.0
    order: int | None = None


class _Active:
    def __init__(self, order: FaultOrder, number: int) -> None:
        self.order = order
        self.number = number
        self.pattern = re.compile(order.match)
        self.until = time.monotonic() + order.seconds if order.seconds is not None else None
        self.left = order.times
        self.hits = 0


class Faults:
    """Decides for each request whether something goes wrong, and writes down what did."""

    def __init__(self, journal: Journal[FaultLine], *, strict: bool, seed: int) -> None:
        self._journal = journal
        self.strict = strict
        # the draws need no secrecy, they need to come again with the same seed
        self._random = random.Random(seed)  # noqa: S311  see above
        self._active: list[_Active] = []
        self._next = 1
        self._struck: dict[str, tuple[float, Hit]] = {}

    def order(self, order: FaultOrder) -> int:
        """Start a fault; its id."""
        self._active.append(_Active(order, self._next))
        self._next += 1
        return self._next - 1

    def heal(self, number: int | None = None) -> int:
        """End one fault, or all; how many were ended."""
        before = len(self._active)
        self._active = [fault for fault in self._active if number not in (None, fault.number)]
        return before - len(self._active)

    def active(self) -> list[dict[str, object]]:
        """The faults that are on: what was ordered, with id, hits so far and seconds left."""
        self._expire()
        return [
            {
                "id": fault.number,
                "hits": fault.hits,
                "seconds_left": None if fault.until is None else round(fault.until - time.monotonic(), 1),
                **msgspec.to_builtins(fault.order),
            }
            for fault in self._active
        ]

    def draw(self, method: str, path: str, subject: str) -> Hit | None:
        """What shall happen to this request, if anything. `subject`: what strict mode spares after a hit."""
        self._expire()
        for fault in self._active:
            order = fault.order
            if order.kind == "stale_etag" or (order.method is not None and order.method != method):
                continue
            if not fault.pattern.search(path) or self._random.random() >= order.share:
                continue
            self._count(fault)
            default = 2.0 if order.kind in ("429", "503") else None
            return Hit(
                kind=order.kind,
                when=order.when,
                retry_after=default if order.retry_after is None else order.retry_after or None,
                code=order.code,
                delay=order.delay,
                order=fault.number,
            )
        return self._daily(subject) if self.strict and re.search(_DEFAULT_MATCH, path) else None

    def stale(self, method: str, path: str, request_id: str) -> bool:
        """Whether the service touches the item right after this write, so that the answer's eTag is old.

        If so, that is written down.
        """
        hit = self._draw_stale(method, path)
        if hit is not None:
            self.log(hit, method=method, path=path, request_id=request_id)
        return hit is not None

    def _draw_stale(self, method: str, path: str) -> Hit | None:
        self._expire()
        for fault in self._active:
            order = fault.order
            if order.kind != "stale_etag" or order.method not in (None, method):
                continue
            if fault.pattern.search(path) and self._random.random() < order.share:
                self._count(fault)
                return Hit(kind="stale_etag", when="after", order=fault.number)
        return Hit(kind="stale_etag", when="after") if self.chance(_SHARE_STALE) else None

    def chance(self, share: float) -> bool:
        """A draw in strict mode; never outside of it."""
        return self.strict and self._random.random() < share

    def spare(self, subject: str) -> bool:
        """Whether a trouble may hit `subject` now; if so, it is spared for a while from then on."""
        now = time.monotonic()
        struck = self._struck.get(subject)
        if struck is not None and now < struck[0] + _SPARED:
            return False
        self._struck[subject] = (now, Hit(kind="slow"))
        return True

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        return self._random.randint(low, high)

    def log(self, hit: Hit, *, method: str, path: str, request_id: str) -> None:
        """Write down a fault that took place."""
        self._journal.append(
            FaultLine(
                time=timestamp(time.time()),
                kind=hit.kind,
                method=method,
                path=path,
                when=hit.when,
                retry_after=hit.retry_after,
                order=hit.order,
                request_id=request_id,
            )
        )

    def _daily(self, subject: str) -> Hit | None:
        now = time.monotonic()
        struck = self._struck.get(subject)
        if struck is not None:
            since, hit = struck
            if hit.retry_after is not None and now < since + hit.retry_after * 0.95:
                return hit
            if now < since + _SPARED:
                return None
            del self._struck[subject]
        draw = self._random.random()
        if draw < _SHARE_SLOW:
            hit = Hit(kind="slow", delay=self._random.uniform(*_SLOW_SECONDS))
        elif draw < _SHARE_SLOW + _SHARE_THROTTLED + _SHARE_UNAVAILABLE:
            kind = "429" if draw < _SHARE_SLOW + _SHARE_THROTTLED else "503"
            wait = self._random.choices(_WAITS, _WAIT_WEIGHTS)[0]
            hit = Hit(kind=kind, retry_after=float(wait))
        else:
            return None
        self._struck[subject] = (now, hit)
        return hit

    @staticmethod
    def _count(fault: _Active) -> None:
        fault.hits += 1
        if fault.left is not None:
            fault.left -= 1

    def _expire(self) -> None:
        now = time.monotonic()
        self._active = [
            fault
            for fault in self._active
            if (fault.until is None or now < fault.until) and (fault.left is None or fault.left > 0)
        ]

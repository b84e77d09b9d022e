"""Stops the reading of a process while its machine cannot work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

_UNHEALTHY_SECONDS: Final = 10.0
"""How long a process that is unhealthy does not read before it tries again."""
_REDIS_SECONDS: Final = 0.5
"""The same after a handler found Redis away: it may be back already, and work resumes within 2 s of that. The
pause keeps an entry from going round and round should Redis refuse the handler alone."""
_LINGERS_SECONDS: Final = 30.0
"""How long after that the process still says why, if no entry came that could show it to be healthy."""
_log = structlog.get_logger(__name__)


class Gate:
    """Stay shut for a while after a handler found a full disk, too many open files, or Redis away.

    Then one entry probes whether this machine is healthy; the first that goes well opens the gate.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._message = ""
        self._until = 0.0
        self._lingers = 0.0

    def shut(self, message: str, *, only_redis: bool) -> None:
        """Stop reading for a while; a short one if `only_redis`, because the lane checks Redis by itself."""
        seconds = _REDIS_SECONDS if only_redis else _UNHEALTHY_SECONDS
        if only_redis and self._lingers and self.reason:
            # the machine's own trouble is the longer one
            self._until = max(self._until, self._clock() + seconds)
            return
        if only_redis:
            _log.warning("redis failed under a handler, reading pauses", error=message, seconds=seconds)
        elif not self.reason:
            _log.error("this machine is unhealthy, reading stops", error=message, seconds=seconds)
        self._message = message
        self._until = max(self._until, self._clock() + seconds)
        self._lingers = 0.0 if only_redis else _LINGERS_SECONDS

    def succeeded(self) -> None:
        """Note that an entry went well."""
        if self.probing:
            _log.info("this machine is healthy again, reading goes on", was=self._message)
            self._message = ""

    @property
    def is_shut(self) -> bool:
        """Return whether nothing may be read now."""
        return bool(self._message) and self._clock() <= self._until

    @property
    def probing(self) -> bool:
        """Return whether one entry at a time may be read, to see whether this machine is healthy."""
        return bool(self.reason) and not self.is_shut

    @property
    def reason(self) -> str:
        """Return why nothing, or only a probe, is read, in words; '' while all is well."""
        if self._message and self._clock() > self._until + self._lingers:
            self._message = ""
        return self._message

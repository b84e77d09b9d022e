"""Builds the parts of one lane in one process, complete when constructed, and runs their loops."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog

from events import keys
from events.connection import connect
from shared.delivery.accounting import Accounting
from shared.delivery.delivery import InFlight
from shared.delivery.handler import Handler
from shared.delivery.heartbeat import Heartbeat
from shared.delivery.lane import Lane
from shared.delivery.reader import Reader
from shared.delivery.scripts import take_over
from shared.delivery.settler import Settler
from shared.sessions.shared_store import SharedSessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.delivery.heartbeat import ProcessInfo
    from shared.delivery.news import News
    from shared.delivery.runtime import Runtime

_NO_LIMIT: Final = 1 << 30
_log = structlog.get_logger(__name__)


class LaneWorker:
    """Work in one lane of one process."""

    def __init__(self, runtime: Runtime, lane_keys: keys.Keys, info: Callable[[], ProcessInfo]) -> None:
        """Build the parts. `info` describes the process, for its heartbeats."""
        settings, stage = runtime.settings, runtime.stage
        reading, writing = (
            connect(
                settings.redis_url, password=str(settings.redis_password), client_name=f"erni:{stage.agent}"
            )
            for _ in range(2)
        )
        sessions = SharedSessions(
            writing, lanes=settings.lanes, limit=settings.session_max, ttl=settings.session_ttl
        )
        self._runtime = runtime
        self.lane = Lane(lane_keys, reading=reading, writing=writing, sessions=sessions)
        self.in_flight = InFlight()
        news: News = deque()
        self.accounting = Accounting(runtime, self.in_flight)
        self._settlers = [
            Settler(runtime, self.lane, stream, self.accounting, news) for stream in stage.streams
        ]
        self._handler = Handler(runtime, self.lane, self._settlers, self.accounting)
        self.heartbeat = Heartbeat(runtime, self.lane, info, news)
        self.reader = Reader(runtime, self.lane, self.in_flight, self._handler, news)

    async def read(self) -> None:
        """Read entries until the process stops."""
        sent = asyncio.create_task(self.heartbeat.sent.wait())
        stopping = asyncio.create_task(self._runtime.stopping.wait())
        await asyncio.wait({sent, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not sent.cancel():
            await self.reader.run()

    def turns(self) -> dict[str, float]:
        """Return the monotonic time of each loop's last turn, by the loop's name."""
        return {"heartbeat": self.heartbeat.turned, "reader": self.reader.turned}

    async def stop_work(self) -> None:
        """End settlers and handlers. Entries still in flight stay pending; other processes take them over."""
        for settler in self._settlers:
            await settler.close()
        await self._handler.close()

    async def sign_off(self) -> None:
        """Remove consumer and record together with the last entry; if some entry is still ours, leave both.

        This is best effort: other processes take over what is left after a lease.
        """
        runtime = self._runtime
        try:
            await take_over(
                self.lane.writing,
                self.lane.keys,
                runtime.stage.agent,
                runtime.stage.streams,
                taker=keys.RETURNED,
                whose=runtime.consumer,
                seen="*",
                limit=0,
                suspect=False,
                max_deliveries=_NO_LIMIT,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the take-over of the others makes up for it
            _log.warning("left without signing off", error=str(error)[:200])

    async def close(self) -> None:
        """Close the connections."""
        await self.lane.reading.aclose()
        await self.lane.writing.aclose()

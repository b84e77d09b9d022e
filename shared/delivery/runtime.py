"""Holds what all parts of a process share: its settings, its place in the topology, and its metrics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from events.publisher import SESSION_TTL_IN_FLIGHT
from events.topology import Stage
from shared.delivery.agent import Agent
from shared.delivery.gate import Gate
from shared.delivery.slots import Slots
from shared.retry.breaker import LONGEST_SPREAD, Breakers
from shared.retry.limit import TimeLimits
from shared.settings import Settings
from shared.telemetry.metrics import BREAKER_OPEN, AgentMetrics
from shared.telemetry.tracing import DeliverySpans
from shared.webhooks.subscriptions import Subscriptions

if TYPE_CHECKING:
    from typing import Self


_HELD_SECONDS = 7200.0
"""Where a stage has a schedule: seconds after which an entry is looked at again whose target has failed for
so long. An endpoint can be down for days, and each look at a waiting entry costs a hand-off."""


class Ttls(msgspec.Struct, frozen=True, kw_only=True):
    """Hold lifetimes in ms: photo records (0: none are written), sessions, sessions in flight."""

    photo: int
    session: int
    session_in_flight: int


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what the parts of one process of one agent share."""

    settings: Settings
    agent: Agent[Any, Any]
    stage: Stage
    consumer: str
    """The unique name under which the process owns entries."""
    spans: DeliverySpans
    metrics: AgentMetrics
    slots: Slots
    breakers: Breakers
    limits: TimeLimits
    gate: Gate
    stopping: asyncio.Event
    ttls: Ttls
    subscriptions: Subscriptions

    @classmethod
    def of(
        cls, agent: Agent[Any, Any], stage: Stage, settings: Settings, consumer: str, spans: DeliverySpans
    ) -> Self:
        """Make the parts that follow from the settings."""
        return cls(
            settings=settings,
            agent=agent,
            stage=stage,
            consumer=consumer,
            spans=spans,
            metrics=AgentMetrics(agent.name),
            slots=Slots(settings.concurrency),
            breakers=Breakers(agent.dependencies, on_change=_show_breaker, longest_spread=_spread(stage)),
            limits=TimeLimits(settings.handle_timeout),
            gate=Gate(),
            stopping=asyncio.Event(),
            ttls=Ttls(
                photo=int(settings.photo_record_hours * 3600_000),
                session=settings.session_ttl * 1000,
                session_in_flight=SESSION_TTL_IN_FLIGHT * 1000,
            ),
            subscriptions=Subscriptions(),
        )


def _spread(stage: Stage) -> float:
    return _HELD_SECONDS if stage.schedule else LONGEST_SPREAD


def _show_breaker(name: str, is_open: bool) -> None:  # noqa: FBT001 - a callback's value
    # a metric's labels are bounded, so no library or host is among them
    if "/" not in name:
        BREAKER_OPEN.labels(name).set(1 if is_open else 0)

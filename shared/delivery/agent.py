"""Defines an agent: a function from event to event, with a name in the topology."""

from __future__ import annotations

import types
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, Union, get_args, get_origin

from events import topology
from events.types import Event

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.delivery.delivery import Delivery
    from shared.settings import Settings

In = TypeVar("In", bound=Event)
Out = TypeVar("Out", bound=Event | None)


current_delivery: ContextVar[Delivery] = ContextVar("current_delivery")
"""The delivery that the agent handles now; an agent may read it, and changes nothing in it."""


class AgentDefinitionError(TypeError):
    """Report an agent class that does not agree with the topology."""


class Agent(Generic[In, Out]):
    """Serve as the base of the five agents, and of the notifier, whose output is None.

    A subclass names itself and turns an event into the next.

    An agent that reads or writes several types names their union:
    ``class ValidationReporter(Agent[PhotoUploaded | SessionCompleted, PhotoValidated | SessionReported])``.
    """

    name: ClassVar[str]
    dependencies: ClassVar[frozenset[str]] = frozenset()
    """The outside parts without which this agent can do nothing: an open breaker stops its reading."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        """Keep what is needed; connections are made in `open`. `redis` is for reading what others left."""
        self.settings = settings
        self.redis = redis

    async def open(self) -> None:
        """Open connections and models; called once, before the first event."""

    async def close(self) -> None:
        """Close what `open` opened; called once, after the last event."""

    async def handle(self, event: In) -> Out:
        """Turn one event into the next. Raise to fail; the delivery engine retries and writes dead letters.

        May run more than once for an event and must take effect once.
        """
        raise NotImplementedError

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check name and generics against the topology. Raises AgentDefinitionError."""
        super().__init_subclass__(**kwargs)
        name = cls.__dict__.get("name")
        if name is None:
            return
        try:
            stage = topology.stage_of(name)
        except KeyError as error:
            raise AgentDefinitionError(f"{cls.__name__}: {error.args[0]}") from None
        base = next((b for b in getattr(cls, "__orig_bases__", ()) if get_origin(b) is Agent), None)
        if base is None:
            raise AgentDefinitionError(f"{cls.__name__} must derive from Agent[Input, Output]")
        reads, writes = (_names(cls, argument) for argument in get_args(base))
        for what, found, drawn in (("reads", reads, stage.reads), ("writes", writes, stage.writes)):
            if found != frozenset(drawn):
                raise AgentDefinitionError(
                    f"{cls.__name__} {what} {', '.join(sorted(found))}, but the topology says"
                    f" {', '.join(sorted(drawn))}"
                )


def _names(cls: type, argument: Any) -> frozenset[str]:
    """Return the event type names of a generic argument, a struct or a union of structs; none for None."""
    if argument is types.NoneType:
        return frozenset()
    members = get_args(argument) if get_origin(argument) in (Union, types.UnionType) else (argument,)
    unknown = [str(member) for member in members if member not in topology.NAMES]
    if unknown:
        raise AgentDefinitionError(f"{cls.__name__}: {', '.join(unknown)} is no event type of the topology")
    return frozenset(topology.NAMES[member] for member in members)

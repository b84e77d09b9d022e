"""The span of one delivery: the OpenTelemetry API's Span, at half the SDK's price.

The SDK's own Span checks and copies every attribute under locks, which for the sixteen attributes of a
delivery costs as much as the rest of it. All of those are ours, so this one keeps them in a dict and turns
into the SDK's ReadableSpan when it ends; processors and exporters see no difference.
"""

from __future__ import annotations

import traceback
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode

from shared.telemetry.redact import hidden_name, scrub, scrub_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.util.types import AnyValue, Attributes

_MOST: Final = 128
"""Attributes, events and links one span keeps; the SDK's default limit."""
_LONGEST: Final = 2048
"""Characters of one attribute's text."""
_UNSET: Final = Status()


def _clean(value: object) -> AnyValue:
    """An attribute's value from code that is not ours: bounded and without secrets."""
    cleaned = scrub_value(value)
    if isinstance(cleaned, str):
        return cleaned[:_LONGEST]
    if isinstance(cleaned, bool | int | float):
        return cleaned
    if isinstance(cleaned, list) and all(isinstance(item, str | bool | int | float) for item in cleaned):
        return cleaned[:_MOST]
    return str(cleaned)[:_LONGEST]


def _clean_all(attributes: Attributes) -> dict[str, AnyValue]:
    return {
        str(key)[:256]: hidden_name(str(key)) or _clean(value)
        for key, value in list((attributes or {}).items())[:_MOST]
    }


class FixedAttributes:
    """Attributes that many spans share. They are not to be changed."""

    __slots__ = ("values", "wire")

    def __init__(self, values: Mapping[str, AnyValue]) -> None:
        """`values`: ours, in need of no check."""
        self.values = values
        self.wire: bytes | None = None
        """What the exporter makes of them, once."""


class EndedHandoff(ReadableSpan):
    """The ended form. Its class tells the exporter that everything in it has been scrubbed."""

    context: SpanContext

    def __init__(self, fixed: FixedAttributes, own: dict[str, AnyValue], **known: Any) -> None:
        """`own`: the attributes beside the `fixed` ones; `known`: what else a ReadableSpan takes."""
        super().__init__(attributes={**fixed.values, **own}, kind=SpanKind.CONSUMER, **known)
        self.fixed = fixed
        self.own = own


class HandoffSpan(Span):
    """A recording span. What an agent adds through the API is scrubbed and bounded; our own goes in as is."""

    __slots__ = (
        "_context",
        "_ended",
        "_events",
        "_fixed",
        "_links",
        "_name",
        "_on_end",
        "_own",
        "_parent",
        "_resource",
        "_scope",
        "_start",
        "_status",
    )

    def __init__(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        links: tuple[Link, ...],
        fixed: FixedAttributes,
        own: dict[str, AnyValue],
        *,
        resource: Resource,
        scope: InstrumentationScope,
        on_end: Callable[[ReadableSpan], None],
    ) -> None:
        """`own`: this span's attributes beside the `fixed` ones; it becomes the span's."""
        self._name = name
        self._context = context
        self._parent = parent
        self._links = links
        self._fixed = fixed
        self._own = own
        self._resource = resource
        self._scope = scope
        self._on_end = on_end
        self._events: list[Event] | None = None
        self._status = _UNSET
        self._ended = False
        self._start = time_ns()

    def get_span_context(self) -> SpanContext:
        return self._context

    def is_recording(self) -> bool:
        return not self._ended

    def set_attribute(self, key: str, value: AnyValue) -> None:
        if not self._ended and (key in self._own or len(self._own) < _MOST):
            self._own[str(key)[:256]] = hidden_name(str(key)) or _clean(value)

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def set_own(self, key: str, value: AnyValue) -> None:
        """An attribute whose value is ours and needs no check."""
        self._own[key] = value

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        if self._ended:
            return
        if self._events is None:
            self._events = []
        if len(self._events) < _MOST:
            self._events.append(Event(name, _clean_all(attributes), timestamp))

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        if not self._ended and len(self._links) < _MOST:
            self._links = (*self._links, Link(context, _clean_all(attributes)))

    def update_name(self, name: str) -> None:
        if not self._ended:
            self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        code = status.status_code if isinstance(status, Status) else status
        text = status.description if isinstance(status, Status) else description
        # OpenTelemetry's rule: OK is final, and unset changes nothing.
        if self._ended or code is StatusCode.UNSET or self._status.status_code is StatusCode.OK:
            return
        self._status = Status(code, scrub(text)[:_LONGEST] if text and code is StatusCode.ERROR else None)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002  # the API's signature
    ) -> None:
        kind = type(exception)
        self.add_event(
            "exception",
            {
                "exception.type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
                "exception.message": str(exception),
                "exception.stacktrace": "".join(traceback.format_exception(exception)),
                "exception.escaped": str(escaped),
                **(attributes or {}),
            },
            timestamp,
        )

    def end(self, end_time: int | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        self._on_end(
            EndedHandoff(
                self._fixed,
                self._own,
                name=self._name,
                context=self._context,
                parent=self._parent,
                resource=self._resource,
                events=self._events or (),
                links=self._links,
                status=self._status,
                start_time=self._start,
                end_time=end_time or time_ns(),
                instrumentation_scope=self._scope,
            )
        )

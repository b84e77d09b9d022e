"""Sets tracing up for a process and ends it: provider, exporter, client instrumentations."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from shared.telemetry.logs import SERVICE
from shared.telemetry.trace_target import TraceTarget, apply_variables, trace_target
from shared.telemetry.tracing import SCOPE, DeliverySpans, server_of, use_tracer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.util.types import AnyValue
    from redis.asyncio import Redis

    from shared.settings import Settings

log = structlog.get_logger()

_LONGEST_ATTRIBUTE: Final = 2048
"""Characters; with the queue's limit this bounds the memory that spans take while no collector answers."""
VERSION: Final = version("erni-foto-agency")


class ProcessResource(Resource):
    """Computes its hash once. The exporter needs it for every span, and the SDK makes a JSON text for it."""

    def __init__(self, attributes: Mapping[str, AnyValue], schema_url: str | None = None) -> None:
        super().__init__(attributes, schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


class TelemetryManager:
    """Traces one process: ``start`` before the first delivery, ``shutdown`` after the last.

    `shared.telemetry.logs.configure_logging` sets up logs, and metrics need no set-up. The standard OTEL_*
    variables, also those in ``.env``, win over our settings.
    """

    def __init__(self, settings: Settings, *, agent: str | None = None, consumer: str) -> None:
        """`consumer`: this process's unique name, the service instance.

        `agent`: None in a process that is no agent; then `consumer` is the name of its service too.
        """
        self._settings = settings
        self._agent = agent
        self._consumer = consumer
        self._provider: TracerProvider | None = None
        self.deliveries = DeliverySpans(consumer=consumer)
        """Makes the span of each delivery; without tracing it makes none."""

    @property
    def tracing(self) -> bool:
        """Return whether spans are made at all."""
        return self._provider is not None

    def start(self) -> None:
        """Set tracing up. Never waits for the collector and never fails: what is wrong is logged."""
        target = trace_target(self._settings, apply_variables())
        if target.off:
            return
        if target.problems:
            log.error("tracing is off: these variables cannot be used", variables=list(target.problems))
            return
        try:
            self._start(target)
        except Exception as error:  # noqa: BLE001  # whatever the SDK raises: telemetry never fails a photo
            reason = f"{type(error).__name__}: {error}"
            log.warning("tracing is off: OpenTelemetry refuses its settings", reason=reason)

    def _start(self, target: TraceTarget) -> None:
        # Imported here, because parts of OpenTelemetry read the environment when they are imported.
        from opentelemetry import trace
        from opentelemetry.sdk.trace import SpanLimits, Tracer, TracerProvider

        from shared.telemetry.client_spans import instrument_http
        from shared.telemetry.export import CountedProcessor, WatchedExporter, exporter_for, quieten_sdk

        # The stable names of HTTP and database attributes (url.full, not http.url).
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
        quieten_sdk()
        limit = None if os.environ.get("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT") else _LONGEST_ATTRIBUTE
        provider = TracerProvider(
            resource=self._resource(),
            span_limits=SpanLimits(max_span_attribute_length=limit, max_attribute_length=limit),
        )
        tracer = provider.get_tracer(SCOPE, VERSION)
        if not isinstance(tracer, Tracer):
            provider.shutdown()
            return
        provider.add_span_processor(
            CountedProcessor(
                WatchedExporter(exporter_for(target), target.endpoint),
                queue_size=target.queue_size,
                batch_size=target.batch_size,
                delay_millis=target.delay_millis,
            )
        )
        instrument_http(provider)
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(provider)
        use_tracer(tracer)
        self.deliveries = DeliverySpans(
            tracer, consumer=self._consumer, server=server_of(self._settings.redis_url)
        )
        self._provider = provider

    def instrument_redis(self, client: Redis) -> None:
        """Give the commands of this client spans of their own.

        This is for the client that agents use. The delivery engine's clients stay as they are: polling reads,
        heartbeats and scripts would bury the photo under noise, and RedisInstrumentor leaves out no command.
        """
        if self._provider is not None:
            from shared.telemetry.client_spans import instrument_redis

            instrument_redis(client, self._provider)

    def shutdown(self) -> None:
        """Send the last spans, for at most three seconds, and stop. A second call is harmless."""
        provider, self._provider = self._provider, None
        if provider is None:
            return
        from shared.telemetry.client_spans import leave_http

        self.deliveries = DeliverySpans(consumer=self._consumer)
        use_tracer(None)
        leave_http()
        provider.shutdown()

    def _resource(self) -> Resource:
        """Return who we are; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.

        Each agent is a service, so that Jaeger's graph of services shows the pipeline.
        """
        name = "erni-" + self._agent.replace("_", "-") if self._agent else self._consumer
        ours = Resource.create(
            {
                "service.name": name,
                "service.namespace": SERVICE,
                "service.version": VERSION,
                "service.instance.id": self._consumer,
                "deployment.environment.name": self._settings.environment,
                **({"agent": self._agent} if self._agent else {}),
            }
        )
        merged = ours.merge(OTELResourceDetector().detect())
        return ProcessResource(merged.attributes, merged.schema_url)

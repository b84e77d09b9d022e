"""Sets tracing up for a process and ends it: provider, exporter, client instrumentations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, Tracer, TracerProvider

from shared.settings import merged_environment
from shared.telemetry.export import HandoffProcessor, WatchedExporter, quieten_sdk
from shared.telemetry.logs import SERVICE
from shared.telemetry.otlp import HandoffExporter
from shared.telemetry.redact import scrub
from shared.telemetry.tracing import SCOPE, DeliverySpans, use_tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from redis.asyncio import Redis
    from yarl import URL

    from shared.settings import Settings

log = structlog.get_logger()

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_LONGEST_ATTRIBUTE: Final = 2048
"""Characters; with the SDK's queue of 2,048 spans this bounds the memory a collector's absence can take."""


class TelemetryManager:
    """One per process: ``start`` before the first delivery, ``shutdown`` after the last.

    Logs are set up apart (`shared.telemetry.logs.configure_logging`), metrics need no set-up. The standard
    OTEL_* variables, also those in ``.env``, win over our settings.
    """

    def __init__(self, settings: Settings, *, agent: str | None = None, consumer: str) -> None:
        """`agent`: None in a process that is no agent. `consumer`: its unique name, the service instance."""
        self._settings = settings
        self._agent = agent
        self._consumer = consumer
        self._provider: TracerProvider | None = None
        self.deliveries = DeliverySpans(consumer=consumer)
        """Makes the span of each delivery; without tracing it makes none."""

    @property
    def tracing(self) -> bool:
        """Whether spans are made at all."""
        return self._provider is not None

    def start(self) -> None:
        """Set tracing up. Never waits for the collector and never fails because of it."""
        for name, value in merged_environment().items():
            if name.startswith("OTEL_"):
                os.environ.setdefault(name, value)
        if not self._settings.enable_tracing or _switched_off():
            return
        # The stable names of HTTP and database attributes (url.full, not http.url).
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
        quieten_sdk()
        limit = None if os.environ.get("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT") else _LONGEST_ATTRIBUTE
        provider = TracerProvider(
            resource=self._resource(), span_limits=SpanLimits(max_span_attribute_length=limit)
        )
        exporter, endpoint = _exporter(self._settings)
        provider.add_span_processor(HandoffProcessor(WatchedExporter(exporter, endpoint)))
        tracer = provider.get_tracer(SCOPE)
        if not isinstance(tracer, Tracer):
            # OpenTelemetry hands out a tracer that does nothing when its own switch is off.
            provider.shutdown()
            return
        self._provider = provider
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(provider)
        use_tracer(tracer)
        self.deliveries = DeliverySpans(tracer, consumer=self._consumer)
        AioHttpClientInstrumentor().instrument(tracer_provider=provider, url_filter=_without_secrets)

    def instrument_redis(self, client: Redis) -> None:
        """Give this client's commands spans of their own.

        For the client agents use. The machinery's clients stay as they are: reads that poll, beats and
        scripts would bury the photo under noise, and RedisInstrumentor cannot leave out a command.
        """
        if self._provider is not None:
            RedisInstrumentor.instrument_client(client, tracer_provider=self._provider)

    def shutdown(self) -> None:
        """Send the last spans, for at most three seconds, and stop. Calling it twice is harmless."""
        provider, self._provider = self._provider, None
        if provider is None:
            return
        self.deliveries = DeliverySpans(consumer=self._consumer)
        use_tracer(None)
        AioHttpClientInstrumentor().uninstrument()
        provider.shutdown()

    def _resource(self) -> Resource:
        """Who we are; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win."""
        ours = Resource.create(
            {
                "service.name": SERVICE,
                "service.instance.id": self._consumer,
                "deployment.environment.name": self._settings.environment,
                **({"agent": self._agent} if self._agent else {}),
            }
        )
        return ours.merge(OTELResourceDetector().detect())


def _switched_off() -> bool:
    """Whether OpenTelemetry's own variables say that nothing is to be traced."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return disabled or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"


def _exporter(settings: Settings) -> tuple[SpanExporter, str]:
    """The OTLP exporter, and the address it sends to. gRPC, unless OpenTelemetry's variables say HTTP."""
    set_elsewhere = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), "grpc")
    if protocol.startswith("http"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

        address = None if set_elsewhere else settings.otlp_endpoint.rstrip("/") + "/v1/traces"
        return OverHttp(endpoint=address), set_elsewhere or settings.otlp_endpoint
    address = None if set_elsewhere else settings.otlp_endpoint
    return HandoffExporter(endpoint=address), set_elsewhere or settings.otlp_endpoint


def _without_secrets(url: URL) -> str:
    """An address for a span: no userinfo, query or fragment."""
    return scrub(str(url.with_user(None).with_query(None).with_fragment(None)))

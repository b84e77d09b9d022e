"""Makes spans of what an agent asks other services: HTTP requests and Redis commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.trace import StatusCode

from shared.telemetry.redact import scrub

if TYPE_CHECKING:
    import aiohttp
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span
    from redis.asyncio import Redis
    from yarl import URL

_ANSWERS: Final = frozenset({404, 409, 412})
"""HTTP statuses that answer a question (is it there, has it changed). Whether that is a failure, only the
agent knows, and then its own span says so."""


def instrument_http(provider: TracerProvider) -> None:
    """Make a span of every request that aiohttp's client sends."""
    AioHttpClientInstrumentor().instrument(
        tracer_provider=provider, url_filter=_without_secrets, response_hook=_accept_answers
    )


def leave_http() -> None:
    """Make no more spans of requests."""
    AioHttpClientInstrumentor().uninstrument()


def instrument_redis(client: Redis, provider: TracerProvider) -> None:
    """Make a span of every command of this client."""
    RedisInstrumentor.instrument_client(client, tracer_provider=provider)


def _without_secrets(url: URL) -> str:
    """Return an address for a span: without userinfo, query and fragment."""
    return scrub(str(url.with_user(None).with_query(None).with_fragment(None)))


def _accept_answers(
    span: Span, params: aiohttp.TraceRequestEndParams | aiohttp.TraceRequestExceptionParams
) -> None:
    """Keep the instrumentation from calling such an answer an error: a span that is OK stays OK."""
    response = getattr(params, "response", None)
    if response is not None and response.status in _ANSWERS:
        span.set_status(StatusCode.OK)

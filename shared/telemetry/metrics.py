"""Defines every metric that this system exports to Prometheus, in one place, each with its description.

Labels are bounded: agents, outcomes, reasons, dependencies and kinds are words of the code, and an error
type comes from a list of class names. A label never holds an id, a path, a message or other event data.

Each process counts for itself, and Prometheus adds the counts up. Figures about the whole system (backlog,
oldest entry, waiting dead letters, sessions) are reported by every process with the same value, so take the
maximum and not the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from shared.telemetry.histogram import BatchHistogram, Series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Nothing here reads the second series that each counter would have, with the time of its creation.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client left it without types

REGISTRY: Final = CollectorRegistry(auto_describe=False)
"""Holds all metrics of this process; `/metrics` shows them."""
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

OUTCOMES: Final = ("done", "dead", "postponed", "interrupted", "fenced", "gone")
"""The outcomes that a delivery can have."""
REASONS: Final = ("exhausted", "permanent", "undecodable", "delivery_limit")
"""The reasons why an entry becomes a dead letter."""
HANDLE_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 60, 90, 120)
"""Seconds: the buckets of OpenTelemetry's messaging conventions, extended to HANDLE_TIMEOUT's default."""

HTTP_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Seconds: the buckets of OpenTelemetry's conventions for HTTP metrics."""

DELIVERIES: Final = Counter(
    "erni_deliveries_total",
    "Deliveries that ended, by agent and outcome.",
    ["agent", "outcome"],
    registry=REGISTRY,
)
HANDLE_SECONDS: Final = BatchHistogram(
    "erni_handle_seconds",
    "Seconds from the start of a delivery to its outcome, retry waits included.",
    "agent",
    buckets=HANDLE_BUCKETS,
)
REGISTRY.register(HANDLE_SECONDS)
IN_HAND: Final = Gauge(
    "erni_in_hand", "Entries this process is working on right now.", ["agent"], registry=REGISTRY
)
BACKLOG: Final = Gauge(
    "erni_backlog",
    "Entries in the agent's input streams, in flight or waiting; the same in every process, take max.",
    ["agent"],
    registry=REGISTRY,
)
OLDEST_ENTRY_SECONDS: Final = Gauge(
    "erni_oldest_entry_seconds",
    "Age of the agent's oldest entry, 0 without one; the same in every process, take max.",
    ["agent"],
    registry=REGISTRY,
)
PENDING: Final = Gauge(
    "erni_pending",
    "Entries delivered to any process of the agent and not settled; the same in every process, take max.",
    ["agent"],
    registry=REGISTRY,
)
DELAYED: Final = Gauge(
    "erni_delayed",
    "Entries postponed and waiting for their time; the same in every process, take max.",
    ["agent"],
    registry=REGISTRY,
)
DEAD_LETTERS: Final = Gauge(
    "erni_dead_letters",
    "Dead letters that wait for a person; the same in every process, take max.",
    ["agent", "reason"],
    registry=REGISTRY,
)
DEAD_LETTERED: Final = Counter(
    # Not erni_dead_letters_total: OpenMetrics allows no gauge and counter of one family name.
    "erni_dead_lettered_total",
    "Entries this process wrote to the dead letters, by agent and reason.",
    ["agent", "reason"],
    registry=REGISTRY,
)
FENCED: Final = Counter(
    "erni_fenced_total",
    "Results dropped because another process owned the entry when this one wanted to settle.",
    ["agent"],
    registry=REGISTRY,
)
TAKEN_OVER: Final = Counter(
    "erni_taken_over_total",
    "Entries taken over from a process whose heartbeat stopped.",
    ["agent"],
    registry=REGISTRY,
)
ORPHANS_RECLAIMED: Final = Counter(
    "erni_orphans_reclaimed_total",
    "Entries that Redis listed as this process's although it did not have them, claimed again.",
    ["agent"],
    registry=REGISTRY,
)
OWNERLESS: Final = Counter(
    "erni_ownerless_entries_total",
    "Entries that were delivered and pending with no consumer (XGROUP DELCONSUMER), taken in again.",
    ["agent"],
    registry=REGISTRY,
)
SESSION_MISSING: Final = Counter(
    "erni_session_missing_total",
    "Settlements whose session had expired, been evicted or been flushed, so that it was not counted.",
    ["agent"],
    registry=REGISTRY,
)
LOST_BODIES: Final = Counter(
    "erni_lost_bodies_total",
    "Pending entries whose body somebody deleted or trimmed: a loss, see the log line.",
    ["agent"],
    registry=REGISTRY,
)
UNKNOWN_FIELDS: Final = Counter(
    "erni_unknown_fields_total",
    "Submissions with a field that does not exist, which was ignored: mostly a typing error.",
    ["agent"],
    registry=REGISTRY,
)
SIDE_WRITE_FAILURES: Final = Counter(
    "erni_side_write_failures_total",
    "Session counters or photo records that could not be written although the hand-off succeeded.",
    ["agent"],
    registry=REGISTRY,
)
GROUP_RECREATED: Final = Counter(
    "erni_group_recreated_total",
    "Times the consumer group was gone (flush, delete, failover) and was created again from the beginning.",
    ["agent"],
    registry=REGISTRY,
)
RETRY_ATTEMPTS: Final = Counter(
    "erni_retry_attempts_total",
    "Attempts repeated after a transient failure, by the failure's type.",
    ["agent", "error_type"],
    registry=REGISTRY,
)
RETRY_SUCCESS: Final = Counter(
    "erni_retry_success_total",
    "Entries that succeeded after at least one failed attempt.",
    ["agent"],
    registry=REGISTRY,
)
RETRY_EXHAUSTED: Final = Counter(
    "erni_retry_exhausted_total",
    "Entries whose last attempt also failed transiently, by the failure's type.",
    ["agent", "error_type"],
    registry=REGISTRY,
)
BREAKER_OPEN: Final = Gauge(
    "erni_breaker_open",
    "1 while this process does not read because an outside service keeps failing, else 0.",
    ["dependency"],
    registry=REGISTRY,
)
SESSIONS: Final = Gauge(
    "erni_sessions", "Sessions in the store; the same in every process, take max.", registry=REGISTRY
)
SESSIONS_OPEN: Final = Gauge(
    "erni_sessions_open",
    "Sessions with photos in flight, which are never evicted; the same in every process, take max.",
    registry=REGISTRY,
)
SESSIONS_OVER_LIMIT: Final = Gauge(
    "erni_sessions_over_limit",
    "Sessions above SESSION_MAX, kept because photos are in flight; the same in every process, take max.",
    registry=REGISTRY,
)
SESSION_CREATED: Final = Counter(
    "erni_session_created_total", "Sessions that this process created.", registry=REGISTRY
)
SESSION_EVICTIONS: Final = Counter(
    "erni_session_evictions_total",
    "Sessions removed before they expired because there were more than SESSION_MAX.",
    registry=REGISTRY,
)
SESSION_EXPIRED: Final = Counter(
    "erni_session_expired_total",
    "Sessions that this process found expired and removed.",
    registry=REGISTRY,
)
SESSION_LOOKUPS: Final = Counter(
    "erni_session_lookups_total",
    "Look-ups of a session by id, by outcome (hit, miss); the hit rate is hits over both.",
    ["outcome"],
    registry=REGISTRY,
)
SESSION_ERRORS: Final = Counter(
    "erni_session_errors_total",
    "Session operations that did not reach Redis (away), or found a value that is no session (corrupt).",
    ["kind"],
    registry=REGISTRY,
)
SESSION_FALLBACK: Final = Gauge(
    "erni_session_fallback",
    "1 while sessions are kept in this process's memory because Redis is away, else 0.",
    registry=REGISTRY,
)
PUBLISH_REFUSED: Final = Gauge(
    "erni_publish_refused",
    "Publishes refused because the first stream was full, since Redis began to count; take max.",
    registry=REGISTRY,
)
WEBHOOKS_WAITING: Final = Gauge(
    "erni_webhooks_waiting",
    "Notices that wait for the notifier, those that were postponed too; the same in every process, take max.",
    registry=REGISTRY,
)
REDIS_MEMORY_USED: Final = Gauge(
    "erni_redis_memory_used_bytes",
    "Memory that Redis uses for data; the same in every process, take max.",
    registry=REGISTRY,
)
REDIS_MEMORY_LIMIT: Final = Gauge(
    "erni_redis_memory_limit_bytes",
    "Memory that Redis may use (maxmemory), 0 without a limit; the same in every process, take max.",
    registry=REGISTRY,
)
REDIS_REFUSED: Final = Gauge(
    "erni_redis_refused_commands",
    "Commands that Redis refused at its memory limit, publishes among them, since it started; take max.",
    registry=REGISTRY,
)
SPAN_EXPORT_FAILURES: Final = Counter(
    "erni_span_export_failures_total",
    "Spans that never reached the collector: the queue was full, their export failed, or the process ended.",
    ["reason"],
    registry=REGISTRY,
)
LOG_LINES_DROPPED: Final = Counter(
    "erni_log_lines_dropped_total",
    "Log lines that could not be written (disk full, reader gone or too slow); photos go on.",
    registry=REGISTRY,
)
TRACE_CONTEXT_REJECTED: Final = Counter(
    "erni_trace_context_rejected_total",
    "Entries with a malformed traceparent (they start a new trace) or tracestate (it is left out).",
    ["field"],
    registry=REGISTRY,
)
REDIS_AWAY_SECONDS: Final = Counter(
    "erni_redis_away_seconds_total",
    "Seconds this process waited for Redis to come back.",
    registry=REGISTRY,
)
REDIS_ERRORS: Final = Counter(
    "erni_redis_errors_total",
    "Errors of this process's own Redis commands, by kind.",
    ["kind"],
    registry=REGISTRY,
)
VISION_TOKENS: Final = Counter(
    "erni_vision_tokens_total",
    "Tokens the vision model read (input) and wrote (output), as its provider counts them.",
    ["model", "direction"],
    registry=REGISTRY,
)
VISION_COST: Final = Counter(
    "erni_vision_cost_total",
    "Money spent on the vision model, in the currency of the price list.",
    ["model"],
    registry=REGISTRY,
)
HTTP_REQUESTS: Final = Counter(
    "erni_http_requests_total",
    "Requests that the gateway has answered, by route and HTTP status.",
    ["route", "status"],
    registry=REGISTRY,
)
HTTP_SECONDS: Final = BatchHistogram(
    "erni_http_request_seconds",
    "Seconds from a request's header to the end of its answer, by route; streams are left out.",
    "route",
    buckets=HTTP_BUCKETS,
)
REGISTRY.register(HTTP_SECONDS)
HTTP_EVENTS: Final = Counter(
    "erni_http_events_total",
    "Events that came over HTTP: published, replayed (published before), or refused.",
    ["outcome"],
    registry=REGISTRY,
)
HTTP_STREAMS: Final = Gauge(
    "erni_http_streams", "Clients that follow /v1/stream of this gateway right now.", registry=REGISTRY
)

ERROR_TYPES: Final = frozenset(
    {
        # our own
        "HttpStatusError",
        "PermanentError",
        "PostponeError",
        "TransientError",
        # Python's
        "BlockingIOError",
        "BrokenPipeError",
        "CancelledError",
        "ConnectionAbortedError",
        "ConnectionError",
        "ConnectionRefusedError",
        "ConnectionResetError",
        "FileNotFoundError",
        "IncompleteReadError",
        "KeyError",
        "MemoryError",
        "OSError",
        "PermissionError",
        "SSLError",
        "TimeoutError",
        "TypeError",
        "UnicodeDecodeError",
        "ValueError",
        "gaierror",
        # aiohttp's
        "ClientConnectionError",
        "ClientConnectorCertificateError",
        "ClientConnectorDNSError",
        "ClientConnectorError",
        "ClientConnectorSSLError",
        "ClientError",
        "ClientOSError",
        "ClientPayloadError",
        "ClientResponseError",
        "ConnectionTimeoutError",
        "ContentTypeError",
        "InvalidURL",
        "ServerDisconnectedError",
        "ServerTimeoutError",
        "SocketTimeoutError",
        "TooManyRedirects",
        # msgspec's
        "DecodeError",
        "ValidationError",
        # redis-py's
        "RedisError",
        "ResponseError",
    }
)
"""The values that the label `error_type` can have, besides `other`."""


def error_type(error: BaseException | type[BaseException] | str) -> str:
    """Return the label for a failure: the name of its class or nearest listed base class, else ``other``.

    A text is read as a class name; one that is not listed is ``other``.
    """
    if isinstance(error, str):
        return error if error in ERROR_TYPES else "other"
    kind = error if isinstance(error, type) else type(error)
    return next((base.__name__ for base in kind.__mro__ if base.__name__ in ERROR_TYPES), "other")


class AgentMetrics:
    """Holds the metrics of one agent, looked up once: `.labels()` costs three times what counting does."""

    __slots__ = (
        "_retry_attempts",
        "_retry_exhausted",
        "agent",
        "backlog",
        "dead_lettered",
        "dead_letters",
        "delayed",
        "deliveries",
        "fenced",
        "group_recreated",
        "handle_seconds",
        "in_hand",
        "lost_bodies",
        "oldest_entry_seconds",
        "orphans_reclaimed",
        "ownerless",
        "pending",
        "retry_success",
        "session_missing",
        "side_write_failures",
        "taken_over",
        "unknown_fields",
    )

    def __init__(self, agent: str) -> None:
        """Create every series of the agent, so that Prometheus sees 0 before the first count."""
        self.agent = agent
        self.deliveries: Mapping[str, Counter] = {
            outcome: DELIVERIES.labels(agent, outcome) for outcome in OUTCOMES
        }
        self.handle_seconds: Series = HANDLE_SECONDS.labels(agent)
        self.in_hand: Gauge = IN_HAND.labels(agent)
        self.backlog: Gauge = BACKLOG.labels(agent)
        self.oldest_entry_seconds: Gauge = OLDEST_ENTRY_SECONDS.labels(agent)
        self.pending: Gauge = PENDING.labels(agent)
        self.delayed: Gauge = DELAYED.labels(agent)
        self.dead_letters: Mapping[str, Gauge] = {
            reason: DEAD_LETTERS.labels(agent, reason) for reason in REASONS
        }
        self.dead_lettered: Mapping[str, Counter] = {
            reason: DEAD_LETTERED.labels(agent, reason) for reason in REASONS
        }
        self.fenced: Counter = FENCED.labels(agent)
        self.taken_over: Counter = TAKEN_OVER.labels(agent)
        self.orphans_reclaimed: Counter = ORPHANS_RECLAIMED.labels(agent)
        self.ownerless: Counter = OWNERLESS.labels(agent)
        self.session_missing: Counter = SESSION_MISSING.labels(agent)
        self.lost_bodies: Counter = LOST_BODIES.labels(agent)
        self.unknown_fields: Counter = UNKNOWN_FIELDS.labels(agent)
        self.side_write_failures: Counter = SIDE_WRITE_FAILURES.labels(agent)
        self.group_recreated: Counter = GROUP_RECREATED.labels(agent)
        self.retry_success: Counter = RETRY_SUCCESS.labels(agent)
        self._retry_attempts: dict[str, Counter] = {}
        self._retry_exhausted: dict[str, Counter] = {}

    def delivered(self, outcome: str, seconds: float) -> None:
        """Count one delivery that ended: its outcome (one of `OUTCOMES`) and its seconds in flight."""
        self.delivered_many(outcome, (seconds,))

    def delivered_many(self, outcome: str, seconds: Sequence[float]) -> None:
        """Count a batch of deliveries with one outcome, with the seconds that each was in flight."""
        self.deliveries[outcome].inc(len(seconds))
        self.handle_seconds.observe_many(seconds)

    def retry_attempt(self, error: BaseException | str) -> None:
        """Count one attempt that is repeated because of `error`."""
        self._child(self._retry_attempts, RETRY_ATTEMPTS, error).inc()

    def retry_exhausted(self, error: BaseException | str) -> None:
        """Count one entry whose last attempt failed with `error`."""
        self._child(self._retry_exhausted, RETRY_EXHAUSTED, error).inc()

    def _child(self, cache: dict[str, Counter], counter: Counter, error: BaseException | str) -> Counter:
        label = error_type(error)
        if label not in cache:
            cache[label] = counter.labels(self.agent, label)
        return cache[label]

"""Writes one JSON line per log event, or a short coloured one on a terminal; library logs go the same way.

`configure_logging` is called once at start-up; modules do ``log = structlog.get_logger()`` and
``log.info("what happened", key=value)``. Inside a delivery every line carries its trace, span, session,
photo and entry ids. The whole pipeline is one function, because each structlog processor costs as much as
the rendering itself.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from shared.telemetry.metrics import LOG_LINES_DROPPED
from shared.telemetry.printable import printable
from shared.telemetry.redact import hidden_name, remember_secrets, scrub, scrub_value, secrets_of

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from types import TracebackType

    from opentelemetry.trace import Span

    from shared.settings import Settings

SERVICE: Final = "erni-foto-agency"

# We make or check the values under these names ourselves (ids match a pattern, the rest are words of the
# code). Searching them for secrets on every line would cost more than the line.
_TRUSTED: Final = frozenset(
    {
        "agent",
        "attempts",
        "consumer",
        "deliveries",
        "duration_ms",
        "entry_id",
        "outcome",
        "photo_id",
        "reason",
        "session_id",
        "span_id",
        "stream",
        "trace_id",
    }
)
_LIBRARY_LINES: Final = 30
"""Lines that one library's logger may write in a minute. One that could not accept connections wrote
70 MB."""
_MINUTE: Final = 60.0
_LEVELS: Final = {"warn": "warning", "exception": "error", "fatal": "critical", "msg": "info"}


class LogContext(Protocol):
    """Holds what the log lines of one delivery have in common.

    It is asked at each line and not prepared before, because most deliveries write one line.
    """

    @property
    def log_fields(self) -> Mapping[str, str]:
        """Return trace_id, span_id, session_id, photo_id and entry_id, as far as they are known."""

    @property
    def log_span(self) -> Span | None:
        """Return the span whose id is among the fields, or None if no other span can be active inside."""


log_context: ContextVar[LogContext | None] = ContextVar("log_context", default=None)
"""Set while a delivery is active (`DeliverySpan.activate`); tasks started inside inherit it."""


class _Pipeline:
    """Turns every log event from keywords into a line on the stream."""

    def __init__(self) -> None:
        self.static: dict[str, str] = {"service": SERVICE}
        self.stream: IO[bytes] | None = None
        self._cut = False
        """Whether the last line was written in part only, so that the next one must begin a new line."""
        self.console: structlog.dev.ConsoleRenderer | None = None
        self._encode = msgspec.json.Encoder(enc_hook=str).encode

    def line(self, level: str, values: MutableMapping[str, Any]) -> bytes:
        """Render one event. `values` holds `event` and what the caller passed."""
        out: dict[str, Any] = {
            "timestamp": datetime.now(UTC),
            "level": level,
            "event": _text(values.pop("event", "")),
        }
        out.update(self.static)
        context = log_context.get()
        if context is not None:
            out.update(context.log_fields)
        own_span = None if context is None else context.log_span
        if context is None or own_span is not None:
            _add_inner_span(out, own_span)
        exc_info = values.pop("exc_info", None)
        for key, value in values.items():
            out[key] = value if key in _TRUSTED else hidden_name(key) or scrub_value(value)
        if exc_info:
            out["exception"] = _exception_text(exc_info)
        if self.console is None:
            try:
                return self._encode(out) + b"\n"
            except (ValueError, OverflowError, TypeError):
                # half a surrogate pair, a number beyond 64 bits: rare, and no reason to lose a line
                return json.dumps(out, default=str).encode() + b"\n"
        return self._for_people(self.console, out)

    def _for_people(self, console: structlog.dev.ConsoleRenderer, out: dict[str, Any]) -> bytes:
        """Render the short form: the time of day, and no field that is equal on every line."""
        for key in ("service", "environment", "consumer", "span_id", "entry_id"):
            out.pop(key, None)
        for key, value in out.items():
            if isinstance(value, str):
                out[key] = printable(value, one_line=key != "exception")
        out["timestamp"] = f"{out['timestamp'].astimezone():%H:%M:%S}"
        return str(console(None, "", out)).encode("utf-8", "replace") + b"\n"

    def write(self, line: bytes) -> None:
        """Write the line in one call, so that lines of several threads or processes do not mix.

        A line that cannot be written (disk full, reader gone or too slow) is dropped and counted: logging
        never stops the work.
        """
        if self._cut:
            line = b"\n" + line
        rest = memoryview(line)
        try:
            stream = self.stream
            if stream is None:
                sys.stderr.write(line.decode())
                sys.stderr.flush()
                return
            # An unbuffered stream may take a part only; None: it would have to wait.
            while rest and (taken := stream.write(rest)):
                rest = rest[taken:]
            stream.flush()
        except (OSError, ValueError):
            # ValueError: the stream was closed at exit.
            pass
        else:
            if not rest:
                self._cut = False
                return
        LOG_LINES_DROPPED.inc()
        self._cut = len(rest) < len(line) or self._cut


_pipeline = _Pipeline()


def _text(event: object) -> str:
    return scrub(event if isinstance(event, str) else str(event))


def _add_inner_span(out: dict[str, Any], own_span: Span | None) -> None:
    """Add the ids of the active span if it is not the delivery's own but one of a traced function inside."""
    span = get_current_span()
    if span is own_span:
        return
    current = span.get_span_context()
    if current.is_valid:
        out["trace_id"] = format_trace_id(current.trace_id)
        out["span_id"] = format_span_id(current.span_id)


def _exception_text(exc_info: Any) -> str:
    """Return the traceback as text, scrubbed. Takes what logging and structlog take for ``exc_info``."""
    if isinstance(exc_info, BaseException):
        lines = traceback.format_exception(exc_info)
    elif isinstance(exc_info, tuple):
        lines = traceback.format_exception(*exc_info)
    else:
        found: tuple[type[BaseException] | None, BaseException | None, TracebackType | None] = sys.exc_info()
        lines = traceback.format_exception(*found)
    return scrub("".join(lines).rstrip())


def _process(_logger: object, method: str, values: MutableMapping[str, Any]) -> bytes:
    """Render an event; this is the only structlog processor."""
    return _pipeline.line(_LEVELS.get(method, method), values)


class _Output:
    """Takes the rendered lines from structlog, at every level."""

    def msg(self, line: bytes) -> None:
        _pipeline.write(line)

    log = debug = info = warn = warning = error = critical = fatal = failure = err = exception = msg


_output = _Output()


class _Rate:
    """Counts the lines of one logger in the current minute."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lines = 0
        self._left_out = 0

    def take(self) -> bool:
        """Report whether one more line may be written."""
        now = time.monotonic()
        if now - self._began >= _MINUTE:
            self._began, self._lines = now, 0
        self._lines += 1
        if self._lines <= _LIBRARY_LINES:
            return True
        self._left_out += 1
        return False

    def reported(self) -> int:
        """Return how many lines were left out since it was asked last."""
        left_out, self._left_out = self._left_out, 0
        return left_out


class _LibraryHandler(logging.Handler):
    """Brings what libraries log through `logging` into the same stream, not more than a rate."""

    def __init__(self) -> None:
        super().__init__()
        self._rates: dict[str, _Rate] = {}

    def emit(self, record: logging.LogRecord) -> None:
        try:
            rate = self._rates.setdefault(record.name, _Rate())
            if not rate.take():
                return
            values: dict[str, Any] = {"event": record.getMessage(), "logger": record.name}
            if left_out := rate.reported():
                values["lines_left_out"] = left_out
            if record.exc_info:
                values["exc_info"] = record.exc_info
            _pipeline.write(_pipeline.line(record.levelname.lower(), values))
        except Exception:  # noqa: BLE001  # logging's rule: an error in a handler goes to handleError
            self.handleError(record)


def configure_logging(
    settings: Settings,
    *,
    agent: str | None = None,
    consumer: str | None = None,
    stream: IO[bytes] | None = None,
) -> None:
    """Set up structlog and `logging` for this process. Call once, before the first line.

    `stream` takes the lines (default: standard error); it decides whether LOG_FORMAT=auto means console.
    Lines carry `agent` and `consumer` where given. The settings' secrets are remembered for `scrub`.
    """
    remember_secrets(secrets_of(settings))
    target: IO[bytes] | None = stream if stream is not None else getattr(sys.stderr, "buffer", None)
    # Unbuffered: a buffer keeps what could not be written, and then refuses the next lines too.
    _pipeline.stream = getattr(target, "raw", target)
    _pipeline.static = {"service": SERVICE, "environment": settings.environment}
    if agent:
        _pipeline.static["agent"] = agent
    if consumer:
        _pipeline.static["consumer"] = consumer
    on_terminal = target is not None and target.isatty()
    as_console = settings.log_format == "console" or (settings.log_format == "auto" and on_terminal)
    _pipeline.console = structlog.dev.ConsoleRenderer(colors=on_terminal) if as_console else None
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[_process],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _output,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if not isinstance(other, _LibraryHandler)]
    root.addHandler(_LibraryHandler())
    # At level info, libraries write what only their developers need.
    root.setLevel(logging.INFO if level <= logging.DEBUG else max(level, logging.WARNING))
    logging.captureWarnings(capture=True)

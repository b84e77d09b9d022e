"""Decides where traces go, from our settings and OpenTelemetry's variables. Exporter and doctor ask here.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and .../configuration/sdk-environment-variables/
define the variables. The SDK raises an error for a value that it cannot read, and often for an empty one,
which compose passes. Here an empty variable is unset, and a wrong one is named with what is allowed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from shared.settings import Settings, merged_environment, proxy_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Protocol: TypeAlias = Literal["grpc", "http/protobuf"]

_GRPC_PORT: Final = 4317
_HTTP_PORT: Final = 4318
_HTTP_PATH: Final = "/v1/traces"
_DEFAULT: Final = Settings().otlp_endpoint
_SAMPLERS: Final = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
_OTLP: Final = ("OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_")
"""A variable of the first prefix wins over the same of the second."""
_LIMITS: Final = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
)
_FILES: Final = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")


class TraceTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Says where traces go and how, or why they go nowhere."""

    endpoint: str
    """With scheme; over HTTP with its path."""
    host: str
    port: int
    protocol: Protocol
    compression: Literal["none", "gzip", "deflate"] = "none"
    timeout: float = 10.0
    """Seconds for one export; the SDK's variables count in seconds."""
    queue_size: int = 2048
    batch_size: int = 512
    delay_millis: int = 1000
    """A span is visible about a second after its end; the SDK's 5 s look like a fault in a demonstration."""
    proxy: str | None = None
    """The proxy on the way; None: direct."""
    off: str = ""
    """Not empty: tracing was switched off by this."""
    problems: tuple[str, ...] = ()
    """Not empty: these variables cannot be used, so tracing is off."""

    @property
    def secure(self) -> bool:
        """Return whether the connection is encrypted."""
        return self.endpoint.startswith("https:")


def apply_variables() -> dict[str, str]:
    """Bring the OTEL_* variables of ``.env`` into the environment, drop empty ones, and return all of them.

    The SDK reads the environment in many places, and there an empty value counts as a wrong one.
    """
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        if not os.environ[name].strip():
            del os.environ[name]
    found = {name: value for name, value in merged_environment().items() if name.startswith("OTEL_")}
    for name, value in found.items():
        os.environ.setdefault(name, value)
    return found


def trace_target(settings: Settings, variables: Mapping[str, str] | None = None) -> TraceTarget:
    """Return where traces go. `variables`: OTEL_* (default: those of the environment and the files)."""
    merged = merged_environment() if variables is None else variables
    given = {name: value.strip() for name, value in merged.items() if name.startswith("OTEL_")}
    return _Reader(settings, {name: value for name, value in given.items() if value}).target()


class _Reader:
    """Reads the variables and collects a sentence for each that cannot be used."""

    def __init__(self, settings: Settings, variables: Mapping[str, str]) -> None:
        self._settings = settings
        self._variables = variables
        self._problems: list[str] = []

    def target(self) -> TraceTarget:
        off = self._off()
        protocol = self._protocol()
        endpoint, host, port = self._endpoint(protocol)
        allowed = ("none", "gzip") if protocol == "grpc" else ("none", "gzip", "deflate")
        compression = self._choice(self._otlp("COMPRESSION"), allowed, "none")
        queue = self._number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, minimum=1)
        batch = self._number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", min(512, queue), minimum=1)
        if batch > queue:
            self._refuse(
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", f"at most OTEL_BSP_MAX_QUEUE_SIZE, which is {queue}"
            )
        found = TraceTarget(
            endpoint=endpoint,
            host=host,
            port=port,
            protocol=protocol,
            compression=compression,  # type: ignore[arg-type]  # one of `allowed`
            timeout=self._seconds(self._otlp("TIMEOUT"), 10.0),
            queue_size=queue,
            batch_size=batch,
            delay_millis=self._number("OTEL_BSP_SCHEDULE_DELAY", 1000, minimum=1),
            proxy=None if self._problems else proxy_for(self._settings, endpoint),
            off=off,
        )
        self._others()
        return msgspec.structs.replace(found, problems=() if off else tuple(self._problems))

    def _off(self) -> str:
        if not self._settings.enable_tracing:
            return "ENABLE_TRACING is off"
        if self._variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return "OTEL_SDK_DISABLED is true"
        exporter = self._choice("OTEL_TRACES_EXPORTER", ("otlp", "none"), "otlp")
        return "OTEL_TRACES_EXPORTER is none" if exporter == "none" else ""

    def _protocol(self) -> Protocol:
        name = self._otlp("PROTOCOL")
        return "grpc" if self._choice(name, ("grpc", "http/protobuf"), "grpc") == "grpc" else "http/protobuf"

    def _endpoint(self, protocol: Protocol) -> tuple[str, str, int]:
        """Return endpoint, host and port. The variable for all signals takes a path of its own over HTTP."""
        name = self._otlp("ENDPOINT")
        text = self._variables.get(name, "")
        whole = text and name.startswith(_OTLP[0])
        if not text:
            name, text = "OTLP_ENDPOINT", self._settings.otlp_endpoint
            if text == _DEFAULT and protocol != "grpc":
                text = text.replace(str(_GRPC_PORT), str(_HTTP_PORT))
        if "://" not in text:
            insecure = self._variables.get(self._otlp("INSECURE"), "true").lower() != "false"
            text = f"{'http' if insecure else 'https'}://{text}"
        expected = "an address such as http://collector:4317, with a port from 1 to 65535"
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
            parts = urlsplit(_DEFAULT)
            self._refuse(name, expected, show=False)
        else:
            if parts.scheme not in ("http", "https") or not host or port == 0:
                self._refuse(name, expected, show=False)
        if protocol != "grpc" and not whole:
            text = text.rstrip("/") + _HTTP_PATH
        return (
            text,
            host or "localhost",
            port or (_GRPC_PORT if protocol == "grpc" else _port_of(parts.scheme)),
        )

    def _others(self) -> None:
        """Check what the SDK reads by itself."""
        self._choice("OTEL_TRACES_SAMPLER", _SAMPLERS, "")
        if self._variables.get("OTEL_TRACES_SAMPLER", "").endswith("traceidratio"):
            self._check("OTEL_TRACES_SAMPLER_ARG", lambda text: 0 <= float(text) <= 1, "a number from 0 to 1")
        for name in _LIMITS:
            self._number(name, 0, minimum=0)
        for kind in _FILES:
            self._check(self._otlp(kind), lambda text: Path(text).is_file(), "a file that exists")

    def _otlp(self, kind: str) -> str:
        """Return the name of the variable that counts."""
        return next((prefix + kind for prefix in _OTLP if prefix + kind in self._variables), _OTLP[1] + kind)

    def _choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        value = self._variables.get(name, default).lower()
        if value != default and value not in allowed:
            self._refuse(name, f"one of {', '.join(allowed)}")
            return default
        return value

    def _number(self, name: str, default: int, *, minimum: int) -> int:
        good = self._check(name, lambda text: int(text) >= minimum, f"a whole number, at least {minimum}")
        return int(self._variables[name]) if good else default

    def _seconds(self, name: str, default: float) -> float:
        good = self._check(name, lambda text: 0 < float(text) < 1e6, "a number of seconds above 0")
        return float(self._variables[name]) if good else default

    def _check(self, name: str, test: Callable[[str], bool], expected: str) -> bool:
        """Return whether the variable is set and passes."""
        if name not in self._variables:
            return False
        try:
            good = test(self._variables[name])
        except ValueError:
            good = False
        if not good:
            self._refuse(name, expected)
        return good

    def _refuse(self, name: str, expected: str, *, show: bool = True) -> None:
        """Note a sentence. An address is not shown: there may be a password in it."""
        shown = f"={self._variables[name][:80]!r}" if show and name in self._variables else ""
        self._problems.append(f"{name}{shown}: expected {expected}")


def _port_of(scheme: str) -> int:
    return 443 if scheme == "https" else 80

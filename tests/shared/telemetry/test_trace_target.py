"""Where traces go, by settings and OpenTelemetry's variables; and that no value of theirs ends a process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shared.settings import Settings
from shared.telemetry.trace_target import trace_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.telemetry.manager import TelemetryManager
    from tests.shared.telemetry.conftest import Lines, Traces

ROOT = Path(__file__).resolve().parents[3]
OTLP = "OTEL_EXPORTER_OTLP_"
HTTP = {OTLP + "PROTOCOL": "http/protobuf"}


@pytest.mark.parametrize(
    ("variables", "endpoint", "port"),
    [
        ({}, "http://localhost:4317", 4317),
        (HTTP, "http://localhost:4318/v1/traces", 4318),
        ({OTLP + "ENDPOINT": "http://c:1"}, "http://c:1", 1),
        ({**HTTP, OTLP + "ENDPOINT": "http://c:1/otlp/"}, "http://c:1/otlp/v1/traces", 1),
        ({**HTTP, OTLP + "TRACES_ENDPOINT": "https://c/mine"}, "https://c/mine", 443),
        ({**HTTP, OTLP + "TRACES_ENDPOINT": "http://c/mine"}, "http://c/mine", 80),
        ({OTLP + "TRACES_ENDPOINT": "http://t:2", OTLP + "ENDPOINT": "http://c:1"}, "http://t:2", 2),
        ({OTLP + "ENDPOINT": "c:4317"}, "http://c:4317", 4317),
        ({OTLP + "ENDPOINT": "c"}, "http://c", 4317),
        ({OTLP + "ENDPOINT": "c:4317", OTLP + "INSECURE": "false"}, "https://c:4317", 4317),
        ({OTLP + "ENDPOINT": "http://[::1]:7", OTLP + "INSECURE": "false"}, "http://[::1]:7", 7),
        ({OTLP + "ENDPOINT": "", OTLP + "PROTOCOL": " "}, "http://localhost:4317", 4317),
        ({OTLP + "TRACES_PROTOCOL": "grpc", **HTTP}, "http://localhost:4317", 4317),
    ],
)
def test_endpoint_and_protocol_follow_the_standard(
    variables: dict[str, str], endpoint: str, port: int
) -> None:
    target = trace_target(Settings(), variables)
    assert (target.endpoint, target.port, target.problems, target.off) == (endpoint, port, (), "")
    assert target.secure is endpoint.startswith("https")


def test_our_own_setting_counts_where_the_standard_ones_say_nothing() -> None:
    settings = Settings(otlp_endpoint="http://collector:4000")
    assert trace_target(settings, {}).endpoint == "http://collector:4000"
    assert trace_target(settings, HTTP).endpoint == "http://collector:4000/v1/traces"


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED is true"),
        ({"OTEL_TRACES_EXPORTER": "none"}, "OTEL_TRACES_EXPORTER is none"),
    ],
)
def test_the_standard_switches_say_which_one_it_was(variables: dict[str, str], reason: str) -> None:
    assert trace_target(Settings(), {**variables, OTLP + "TIMEOUT": "x"}).off == reason
    assert trace_target(Settings(enable_tracing=False), {}).off == "ENABLE_TRACING is off"


WRONG = [
    (OTLP + "TIMEOUT", "10s", "='10s': expected a number of seconds above 0"),
    (OTLP + "COMPRESSION", "deflate", "='deflate': expected one of none, gzip"),
    (OTLP + "PROTOCOL", "http/json", "='http/json': expected one of grpc, http/protobuf"),
    (OTLP + "ENDPOINT", "http://c:99999", ": expected an address such as http://collector:4317"),
    (OTLP + "ENDPOINT", "http://user:geheim@c:0", ": expected an address such as http://collector:4317"),
    (OTLP + "ENDPOINT", "ftp://c", ": expected an address such as http://collector:4317"),
    (OTLP + "CERTIFICATE", "/no/such.pem", "='/no/such.pem': expected a file that exists"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "='many': expected a whole number, at least 1"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "='0': expected a whole number, at least 1"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", "='4096': expected at most OTEL_BSP_MAX_QUEUE_SIZE"),
    ("OTEL_BSP_SCHEDULE_DELAY", "1s", "='1s': expected a whole number, at least 1"),
    ("OTEL_TRACES_EXPORTER", "zipkin", "='zipkin': expected one of otlp, none"),
    ("OTEL_TRACES_SAMPLER", "sometimes", "='sometimes': expected one of always_on,"),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1", "='-1': expected a whole number, at least 0"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), WRONG)
def test_a_wrong_variable_is_named_with_what_is_allowed(name: str, value: str, sentence: str) -> None:
    (problem,) = trace_target(Settings(), {name: value}).problems
    assert problem.startswith(name + sentence)
    assert "geheim" not in problem


@pytest.mark.parametrize("argument", ["2", "often"])
def test_a_sampling_ratio_is_a_number_from_0_to_1(argument: str) -> None:
    variables = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": argument}
    (problem,) = trace_target(Settings(), variables).problems
    assert problem == f"OTEL_TRACES_SAMPLER_ARG={argument!r}: expected a number from 0 to 1"


@pytest.mark.parametrize(
    "variables",
    [
        {name: value for name, value, _ in WRONG},
        {"OTEL_PROPAGATORS": "nonsense"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:port"},
    ],
    ids=["all wrong", "propagator", "scheme"],
)
def test_wrong_variables_switch_tracing_off_and_the_process_goes_on(variables: dict[str, str]) -> None:
    code, lines = _process(variables)
    assert code == 0
    (line,) = [line for line in lines if line["event"].startswith("tracing is off")]
    assert "exception" not in line
    assert lines[-1]["event"] == "delivery"


def test_grpc_writes_no_line_of_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:
        threading.Thread(target=_refuse_tls, args=(plain,), daemon=True).start()
        code, lines = _process({"OTLP_ENDPOINT": f"https://127.0.0.1:{plain.getsockname()[1]}"})
    # each line is ours: `_process` reads them as JSON
    assert (code, lines[0]["event"]) == (0, "delivery")


def _refuse_tls(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_empty_variables_are_unset(traces: Traces) -> None:
    names = [name for name, *_ in WRONG] + [
        "OTEL_PROPAGATORS",
        "OTEL_SERVICE_NAME",
        "OTEL_TRACES_SAMPLER_ARG",
    ]
    code, lines = _process({"OTLP_ENDPOINT": traces.endpoint, **dict.fromkeys(names, "")})
    assert (code, [line["event"] for line in lines]) == (0, ["delivery"])
    assert traces.spans_of(lines[0]["trace_id"])


def _process(variables: dict[str, str]) -> tuple[int, list[dict[str, str]]]:
    """The exit code and the log lines of a process that handles one entry."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.shared.telemetry.agent_process",
            "photo_fetcher",
            "photo_fetch",
            "p-1",
            "",
        ],
        input=b"{}",
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LOG_FORMAT": "json", **variables},
        check=False,
        timeout=60,
    )
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]


def test_over_http_spans_go_to_the_path_of_the_standard(
    start: Callable[..., TelemetryManager], monkeypatch: pytest.MonkeyPatch, logged: Lines
) -> None:
    posted: list[tuple[str, str | None]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name is http.server's
            self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, self.headers["Content-Encoding"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    monkeypatch.setenv(OTLP + "PROTOCOL", "http/protobuf")
    monkeypatch.setenv(OTLP + "COMPRESSION", "gzip")
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        manager = start(otlp_endpoint=f"http://127.0.0.1:{server.server_port}")
        manager.deliveries.start("photo_fetcher", "photo_fetch", {}, "1-0", "s", 1, None, "p-1").end("done")
        manager.shutdown()
        server.shutdown()
    assert posted == [("/v1/traces", "gzip")]
    assert logged.lines == []

"""One line per event: what is on it, who may write it, and what never is."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from shared.settings import Secret, Settings
from shared.telemetry.logs import configure_logging
from shared.telemetry.metrics import REGISTRY
from shared.telemetry.tracing import DeliverySpans, traced_span
from tests.shared.telemetry.conftest import parent_of, tags

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.telemetry.manager import TelemetryManager
    from shared.telemetry.tracing import DeliverySpan
    from tests.shared.telemetry.conftest import Lines, Traces

ROOT = Path(__file__).resolve().parents[3]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"


def delivery(spans: DeliverySpans, photo_id: str = "p-1", traceparent: str = PARENT) -> DeliverySpan:
    return spans.start(
        "photo_fetcher",
        "photo_fetch",
        {"traceparent": traceparent},
        "1780000000000-0",
        "erni:schema.extracted",
        1,
        "seewen-2026",
        photo_id,
    )


def test_a_line_is_json_with_event_level_time_service_environment_agent_and_consumer(logged: Lines) -> None:
    structlog.get_logger().info("started", lanes=4)
    (line,) = logged.lines
    assert datetime.now(UTC) - datetime.fromisoformat(line.pop("timestamp")) < timedelta(seconds=10)
    assert line == {
        "level": "info",
        "event": "started",
        "service": "erni-foto-agency",
        "environment": "development",
        "agent": "photo_fetcher",
        "consumer": "bau-1-7",
        "lanes": 4,
    }


def test_a_line_inside_a_delivery_has_its_ids_also_when_tracing_is_off(logged: Lines) -> None:
    log = structlog.get_logger()
    with delivery(DeliverySpans()):
        log.info("inside")
    log.info("outside")
    inside, outside = logged.lines
    assert inside["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert inside["span_id"] == "b7ad6b7169203331"
    assert inside["session_id"] == "seewen-2026"
    assert inside["photo_id"] == "p-1"
    assert inside["entry_id"] == "1780000000000-0"
    assert not {"trace_id", "span_id", "session_id", "photo_id", "entry_id"} & outside.keys()


def test_the_ids_on_a_line_are_those_of_the_span_that_arrives(
    logged: Lines, start: Callable[..., TelemetryManager], traces: Traces, photo_id: str
) -> None:
    manager = start()

    @traced_span("measure")
    def measure() -> None:
        structlog.get_logger().info("in the function")

    span = delivery(manager.deliveries, photo_id, traceparent="")
    with span:
        structlog.get_logger().info("in the delivery")
        measure()
        logging.getLogger("library").warning("from a library")
    span.end("done")
    manager.shutdown()
    outer, inner, library = logged.lines
    found = {one["operationName"]: one for one in traces.spans_of(outer["trace_id"])}
    assert outer["span_id"] == found["agent_handoff.photo_fetcher"]["spanID"] == library["span_id"]
    assert inner["span_id"] == found["measure"]["spanID"]
    assert parent_of(found["measure"]) == outer["span_id"]
    assert {line["trace_id"] for line in logged.lines} == {outer["trace_id"]}
    assert tags(found["agent_handoff.photo_fetcher"])["photo.id"] == inner["photo_id"] == photo_id


def test_library_logs_and_warnings_go_the_same_way(logged: Lines) -> None:
    logging.getLogger("some.library").warning("it took %d s", 3)
    logging.getLogger("some.library").info("chatter")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    first, second = logged.lines
    assert (first["event"], first["logger"], first["level"]) == ("it took 3 s", "some.library", "warning")
    assert "DeprecationWarning: old" in second["event"]


def test_no_secret_and_no_position_is_on_a_line_wherever_it_was_put(logged: Lines) -> None:
    log = structlog.get_logger()
    canary = "kanarienvogel-4711"
    sentence = f"fetching https://host/x?sig={canary}"
    log.info(sentence)
    log.info(
        "fetching",
        url=f"https://u:{canary}@host/x",
        headers={"Authorization": canary},
        key=[f"token={canary}"],
    )
    log.info("configured", setting=Secret(canary), vision_api_key=canary, body=f"password={canary}".encode())
    log.info("taken", latitude=47.376888, at="47.376888, 8.541694")
    try:
        int(f"https://host/x?{canary}")
    except ValueError:
        log.exception("failed")
        logging.getLogger("aiohttp").exception("failed")
    text = logged.getvalue().decode()
    assert canary not in text
    assert "47.37" not in text
    assert "8.54" not in text
    assert len(logged.lines) == 6


def test_an_exception_is_a_field_with_its_traceback(logged: Lines) -> None:
    try:
        vars(structlog)["the store"]
    except KeyError:
        structlog.get_logger().exception("failed")
    (line,) = logged.lines
    assert line["level"] == "error"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("KeyError: 'the store'")


def test_what_json_cannot_say_is_said_as_text(logged: Lines) -> None:
    structlog.get_logger().info(
        "odd", a={1: {2, 3}}, b=object, c=float("nan"), d=b"\xff\xfe", e=10**30, f="\ud800"
    )
    assert logged.lines[0]["event"] == "odd"


def test_the_level_is_the_settings(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import structlog, logging\n"
        "from shared.settings import Settings\n"
        "from shared.telemetry.logs import configure_logging\n"
        "configure_logging(Settings(log_format='json', log_level='warning'))\n"
        "log = structlog.get_logger()\n"
        "log.info('quiet'); log.warning('loud'); logging.getLogger('x').info('quiet')\n"
        "logging.getLogger('x').error('loud too')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    out, err = capfd.readouterr()
    assert out == ""
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["loud", "loud too"]


def test_lines_of_threads_do_not_mix(logged: Lines) -> None:
    log = structlog.get_logger()

    def write(number: int) -> None:
        for index in range(200):
            log.info("line", number=number, index=index, filler="x" * 500)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(logged.lines) == 800


@pytest.mark.usefixtures("logged")
def test_a_reader_that_went_away_does_not_stop_the_work() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream:
        configure_logging(Settings(log_format="json"), stream=stream)
        os.close(reading)
        before = dropped()
        structlog.get_logger().info("nobody reads this")
        assert dropped() == before + 1


def dropped() -> float:
    return REGISTRY.get_sample_value("erni_log_lines_dropped_total") or 0


@pytest.mark.usefixtures("logged")
def test_a_full_disk_drops_lines_and_counts_them() -> None:
    with Path("/dev/full").open("wb") as stream:
        configure_logging(Settings(log_format="json"), stream=stream)
        before = dropped()
        for _ in range(3):
            structlog.get_logger().info("no space for this")
        assert dropped() == before + 3


@pytest.mark.usefixtures("logged")
def test_a_reader_that_is_too_slow_loses_lines_and_none_is_cut() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb") as stream:
        configure_logging(Settings(log_format="json"), stream=stream)
        log, before = structlog.get_logger(), dropped()
        number = 0
        while dropped() < before + 2:
            log.info("line", number=number, filler="x" * 5000)
            number += 1
        os.set_blocking(reading, False)
        taken = reader.read()
        log.info("heard again")
        taken += reader.read()
    lines = [line for line in taken.splitlines() if line.endswith(b"}")]
    assert [json.loads(line)["event"] for line in lines] == ["line"] * (number - 2) + ["heard again"]


@pytest.mark.usefixtures("logged")
def test_a_terminal_that_is_gone_drops_lines() -> None:
    main, terminal = os.openpty()
    with os.fdopen(terminal, "wb", buffering=0) as stream:
        configure_logging(Settings(log_format="json"), stream=stream)
        os.close(main)
        before = dropped()
        structlog.get_logger().info("nobody sees this")
        assert dropped() == before + 1


def test_a_process_whose_standard_error_is_full_does_its_work() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [
                *[sys.executable, "-m", "tests.shared.telemetry.agent_process"],
                *["photo_fetcher", "photo_fetch", "p-1", ""],
            ],
            input=b"{}",
            stdout=subprocess.PIPE,
            stderr=full,
            env={**os.environ, "PYTHONPATH": str(ROOT), "ENABLE_TRACING": "0", "LOG_FORMAT": "json"},
            check=False,
            timeout=60,
        )
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"traceparent": "", "tracestate": ""}


@pytest.mark.usefixtures("logged")
def test_the_console_form_is_short_and_keeps_what_one_searches_by() -> None:
    stream = io.BytesIO()
    configure_logging(
        Settings(log_format="console"), agent="photo_fetcher", consumer="bau-1-7", stream=stream
    )
    with delivery(DeliverySpans()):
        structlog.get_logger().info("delivery", outcome="done", url="https://host/x?sig=abcd")
    text = stream.getvalue().decode()
    assert "delivery" in text
    assert "photo_id=p-1" in text
    assert "agent=photo_fetcher" in text
    assert "abcd" not in text
    assert "bau-1-7" not in text
    assert text.count("\n") == 1


def test_a_library_that_repeats_itself_for_ever_writes_some_lines_a_minute(
    logged: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("shared.telemetry.logs.time.monotonic", lambda: now)
    library = logging.getLogger("some.library")
    for _ in range(1000):
        library.error("no free descriptor")
    logging.getLogger("another.library").error("something else")
    assert [line["logger"] for line in logged.lines] == ["some.library"] * 30 + ["another.library"]
    now += 61
    library.error("no free descriptor")
    assert logged.lines[-1]["lines_left_out"] == 970

"""The instruments: bounded labels, a sentence each, and what Prometheus's own tool says of them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, cast

import aiohttp
import msgspec
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from events import topology
from shared.retry.errors import HttpStatusError, PermanentError
from shared.telemetry import metrics
from shared.telemetry.histogram import BatchHistogram
from shared.telemetry.metrics import AgentMetrics, error_type
from tests.tools import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

INSTRUMENTS = {
    name: value
    for name, value in vars(metrics).items()
    if isinstance(value, MetricWrapperBase | BatchHistogram) and name.isupper()
}


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_every_instrument_is_ours_by_name_and_explains_itself_in_a_sentence(name: str) -> None:
    (family,) = INSTRUMENTS[name].describe()
    assert family.name.startswith("erni_")
    assert family.documentation.endswith((".", "else 0."))
    assert len(family.documentation) > 20


def test_no_label_could_hold_an_id_a_path_or_a_message() -> None:
    used: set[str] = set()
    for instrument in INSTRUMENTS.values():
        used |= {instrument.label} if isinstance(instrument, BatchHistogram) else set(instrument._labelnames)
    assert used == {
        "agent", "dependency", "direction", "error_type", "field", "kind", "model", "outcome", "reason",
        "route", "status",
    }  # fmt: skip


def test_an_agents_series_are_there_before_they_first_count() -> None:
    AgentMetrics("never_ran")
    text = generate_latest(metrics.REGISTRY).decode()
    for outcome in metrics.OUTCOMES:
        assert f'erni_deliveries_total{{agent="never_ran",outcome="{outcome}"}} 0.0' in text
    assert 'erni_handle_seconds_count{agent="never_ran"} 0.0' in text


def test_a_delivery_counts_its_outcome_and_its_time() -> None:
    agent = AgentMetrics("counts_once")
    agent.delivered("done", 0.3)
    agent.delivered("dead", 130)
    assert value("erni_deliveries_total", agent="counts_once", outcome="done") == 1
    assert value("erni_deliveries_total", agent="counts_once", outcome="dead") == 1
    assert value("erni_handle_seconds_bucket", agent="counts_once", le="0.5") == 1
    assert value("erni_handle_seconds_bucket", agent="counts_once", le="120.0") == 1
    assert value("erni_handle_seconds_sum", agent="counts_once") == 130.3


def test_a_batch_counts_as_its_deliveries_do_one_by_one() -> None:
    seconds = [0.0, 0.005, 0.3, 0.3, 130.0]
    AgentMetrics("batch").delivered_many("done", seconds)
    theirs = CollectorRegistry()
    histogram = Histogram(
        "erni_handle_seconds", "x.", ["agent"], buckets=metrics.HANDLE_BUCKETS, registry=theirs
    )
    for taken in seconds:
        AgentMetrics("single").delivered("done", taken)
        histogram.labels("peer").observe(taken)
    assert value("erni_deliveries_total", agent="batch", outcome="done") == 5
    served = {agent: _series(metrics.REGISTRY, agent) for agent in ("batch", "single")}
    assert served["batch"] == served["single"] == _series(theirs, "peer")


def _series(registry: CollectorRegistry, agent: str) -> list[str]:
    """The lines of an agent's histogram, without its name."""
    lines = generate_latest(registry).decode().splitlines()
    named = f'agent="{agent}"'
    return [
        line.replace(named, "") for line in lines if line.startswith("erni_handle_seconds") and named in line
    ]


class _OwnError(PermanentError):
    pass


@pytest.mark.parametrize(
    ("error", "label"),
    [
        (TimeoutError("x"), "TimeoutError"),
        (ConnectionResetError(), "ConnectionResetError"),
        (aiohttp.ServerDisconnectedError(), "ServerDisconnectedError"),
        (HttpStatusError("x", status=503), "HttpStatusError"),
        (msgspec.ValidationError("x"), "ValidationError"),
        (_OwnError("x"), "PermanentError"),
        (type("Made", (OSError,), {})(), "OSError"),
        (type("Strange", (Exception,), {})("x"), "other"),
        ("TimeoutError", "TimeoutError"),
        ("photo p-1 at https://host", "other"),
    ],
)
def test_an_error_type_is_a_listed_class_name_or_other(error: BaseException | str, label: str) -> None:
    assert error_type(error) == label
    agent = AgentMetrics("retries")
    before = value("erni_retry_attempts_total", agent="retries", error_type=label)
    agent.retry_attempt(error)
    agent.retry_exhausted(error)
    assert value("erni_retry_attempts_total", agent="retries", error_type=label) == before + 1
    assert value("erni_retry_exhausted_total", agent="retries", error_type=label) >= 1


def test_what_is_served_is_valid_openmetrics() -> None:
    for agent in topology.AGENTS:
        AgentMetrics(agent).delivered("done", 1)
    text = generate_openmetrics(metrics.REGISTRY).decode()  # type: ignore[no-untyped-call]  # left without types
    parse = cast("Callable[[str], Iterator[Metric]]", text_string_to_metric_families)
    families = {family.name for family in parse(text)}
    assert {"erni_deliveries", "erni_dead_letters", "erni_dead_lettered", "erni_handle_seconds"} <= families


@pytest.mark.needs("promtool")
def test_prometheus_finds_nothing_wrong_with_them() -> None:
    for agent in topology.AGENTS:
        agent_metrics = AgentMetrics(agent)
        agent_metrics.retry_attempt("TimeoutError")
        agent_metrics.retry_exhausted("TimeoutError")
    text = generate_latest(metrics.REGISTRY)
    ours = b"".join(line + b"\n" for line in text.splitlines() if b"erni_" in line)
    checked = subprocess.run(
        [require("promtool"), "check", "metrics"], input=ours, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout + checked.stderr == b""

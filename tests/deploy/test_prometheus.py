"""Alert rules, dashboard and scrape configuration, against our instruments and a real Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client.metrics import MetricWrapperBase

from sandbox.redis_server import free_port
from shared.telemetry import metrics
from shared.telemetry.histogram import BatchHistogram
from tests.tools import ROOT, require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEPLOY = ROOT / "deploy"
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
RULE_TESTS = yaml.safe_load((DEPLOY / "alerts_test.yml").read_text())["tests"]
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
_SAMPLES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def ours() -> dict[str, set[str]]:
    """Each instrument's family and the names of its samples."""
    kinds = MetricWrapperBase | BatchHistogram
    instruments = [value for value in vars(metrics).values() if isinstance(value, kinds)]
    families = [family for instrument in instruments for family in instrument.describe()]
    return {family.name: {family.name + end for end in _SAMPLES[family.type]} for family in families}


def used(expressions: Iterator[str]) -> set[str]:
    """The names of ours in PromQL."""
    return {name for text in expressions for name in re.findall(r"\berni_[a-z_]+", text)}


def panel_expressions() -> Iterator[str]:
    """Every query of the dashboard."""
    return (target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ()))


def promtool(*arguments: str | Path) -> str:
    """Run it; its output, or a failure with it."""
    done = subprocess.run(
        [require("promtool"), *arguments], capture_output=True, text=True, check=False, cwd=DEPLOY
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_alerts_and_dashboard_ask_only_for_numbers_there_are() -> None:
    there = set().union(*ours().values())
    assert used(rule["expr"] for rule in RULES) <= there
    assert used(panel_expressions()) <= there


def test_every_number_is_on_the_dashboard() -> None:
    shown = used(panel_expressions())
    assert [family for family, samples in ours().items() if not samples & shown] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_is_shown_to_fire_and_to_keep_quiet_and_says_what_to_do(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    calm, *firing = RULE_TESTS
    assert {"alertname": name, "eval_time": "35m", "exp_alerts": []} in calm["alert_rule_test"]
    (own,) = (test for test in firing if test["name"] == name)
    assert own["alert_rule_test"][0]["exp_alerts"]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["runbook"] == f"docs/on-call.md#{name.lower()}"
    assert rule["annotations"]["summary"].endswith(".")


@pytest.mark.needs("promtool")
def test_prometheus_takes_the_configuration_and_the_rules_and_their_tests_pass() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "alerts.yml")
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


@pytest.mark.needs("promtool")
def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {
            "record": f"panel:query:n{number}",
            "expr": text.replace("$__rate_interval", "1m").replace("$agent", ".*"),
        }
        for number, text in enumerate(panel_expressions())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


async def _agent(number: int) -> tuple[asyncio.subprocess.Process, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.deploy.metrics_process",
        "photo_fetcher",
        str(number),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    return process, int(await process.stdout.readline())


@pytest.mark.slow
@pytest.mark.needs("promtool")
async def test_prometheus_finds_all_processes_of_an_agent_and_shows_their_sum(tmp_path: Path) -> None:
    agents = await asyncio.gather(*(_agent(number) for number in (1, 20, 300)))

    async def targets(_: web.Request) -> web.Response:
        return web.json_response(
            [
                {
                    "targets": [f"127.0.0.1:{port}"],
                    "labels": {"agent": "photo_fetcher", "instance": f"bau-{port}"},
                }
                for _, port in agents
            ]
        )

    app = web.Application()
    app.router.add_get("/metrics/targets", targets)
    async with TestServer(app) as gateway:
        config = (DEPLOY / "prometheus.yml").read_text()
        config = config.replace("15s", "1s").replace(
            "http://gateway:8085", str(gateway.make_url("/")).rstrip("/")
        )
        (tmp_path / "prometheus.yml").write_text(config)
        port = free_port()
        prometheus = await asyncio.create_subprocess_exec(
            require("promtool").with_name("prometheus"),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            done = 'sum by (agent) (erni_deliveries_total{outcome="done"})'
            assert await _answer(port, done, "321") == {"agent": "photo_fetcher"}
            assert await _answer(port, "max by (agent) (erni_backlog)", "40") == {"agent": "photo_fetcher"}
            assert await _answer(port, 'count(erni_in_hand{instance=~"bau-.+",exported_agent=""})', "3") == {}
        finally:
            prometheus.terminate()
            await prometheus.wait()
    for process, _ in agents:
        await process.communicate(b"")


async def _answer(port: int, query: str, expected: str) -> dict[str, str]:
    """The labels of a query's only result, once its value is as expected. It scrapes in its own time."""
    seen: object = None
    address, asked = f"http://127.0.0.1:{port}/api/v1/query", {"query": query}
    try:
        async with aiohttp.ClientSession() as client, asyncio.timeout(40):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with client.get(address, params=asked) as answer:
                        seen = (await answer.json())["data"]["result"] if answer.status == 200 else None
                if isinstance(seen, list) and len(seen) == 1 and seen[0]["value"][1] == expected:
                    labels: dict[str, str] = seen[0]["metric"]
                    return labels
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"{query} never was {expected}; last seen: {seen}")

"""A session's numbers are those of its photos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from events.types import Analysis, Step
from shared.reports.totals import agent_times, model_costs
from tests.shared.reports.sample import photo_report

if TYPE_CHECKING:
    from shared.reports.photo_report import PhotoReport


def _with_steps(*steps: Step) -> PhotoReport:
    return msgspec.structs.replace(photo_report(1), steps=list(steps))


def test_times_are_seen_durations_per_agent_in_the_order_of_the_pipeline() -> None:
    reports = [
        _with_steps(
            Step(agent="vision_analyzer", started=1.0, seconds=float(second), attempts=1 + (second == 20)),
            Step(agent="photo_fetcher", started=0.0, seconds=0.5, deliveries=2),
        )
        for second in range(1, 21)
    ]
    fetcher, vision = agent_times(reports)
    assert (fetcher.agent, fetcher.median, fetcher.p95, fetcher.retried) == ("photo_fetcher", 0.5, 0.5, 20)
    assert (vision.median, vision.p95, vision.total, vision.retried) == (10.0, 19.0, 210.0, 1)


def test_an_agent_that_the_topology_does_not_know_comes_last() -> None:
    report = _with_steps(
        Step(agent="a_later_agent", started=0.0, seconds=1.0),
        Step(agent="validation_reporter", started=0.0, seconds=1.0),
    )
    assert [line.agent for line in agent_times([report])] == ["validation_reporter", "a_later_agent"]


def test_answers_that_were_there_already_cost_nothing() -> None:
    paid = Analysis(model="m", prompt_version="1", prompt_tokens=1000, completion_tokens=100)
    kept = msgspec.structs.replace(paid, cached=True)
    reports = [
        msgspec.structs.replace(photo_report(seed), analysis=analysis, cost=cost, currency="USD")
        for seed, (analysis, cost) in enumerate(((paid, 0.5), (paid, 0.25), (kept, 0.0)))
    ]
    (line,) = model_costs(reports)
    assert (line.photos, line.cached, line.prompt_tokens, line.completion_tokens, line.cost) == (
        3, 1, 2000, 200, 0.75
    )  # fmt: skip


def test_a_model_without_a_price_has_no_cost_rather_than_none_at_all() -> None:
    local = Analysis(model="local", prompt_version="1")
    reports = [
        msgspec.structs.replace(photo_report(1), analysis=local, cost=None, currency=""),
        msgspec.structs.replace(photo_report(2), cost=0.5, currency="USD"),
        msgspec.structs.replace(photo_report(3), cost=0.5, currency="USD"),
    ]
    assert [(line.model, line.cost) for line in model_costs(reports)] == [("gpt-4o", 1.0), ("local", None)]

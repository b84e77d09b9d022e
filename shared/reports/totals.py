"""Computes a session in numbers: how many, how much, how long."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from events import topology
from events.types import Record
from shared.columns import needs
from shared.columns.schema import Column
from shared.columns.topics import topic_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shared.reports.photo_report import PhotoReport


LOCAL_MODEL: Final = "efficientnet-lite0"
"""The local analyzer's model (`shared.vision.local.model`). Only its name says that no service was asked: a
service need not report tokens, and an answer that was kept counts none."""


class AgentTime(Record, frozen=True, kw_only=True):
    """Hold how long one agent worked on photos of a session, in seconds."""

    agent: str
    median: float
    p95: float
    total: float
    retried: int
    """Photos that took more than one attempt or delivery."""


class ModelCost(Record, frozen=True, kw_only=True):
    """Hold what one model's answers took."""

    model: str
    currency: str
    photos: int
    cached: int
    """Photos whose answer was there already and cost nothing."""
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    """None where no photo has a known price."""


def agent_times(reports: Iterable[PhotoReport]) -> list[AgentTime]:
    """Return one line for each agent that worked on a photo, in the order of the pipeline."""
    seconds: dict[str, list[float]] = defaultdict(list)
    retried: dict[str, int] = defaultdict(int)
    for report in reports:
        for step in report.steps:
            seconds[step.agent].append(step.seconds)
            retried[step.agent] += step.attempts > 1 or step.deliveries > 1
    drawn = {agent: place for place, agent in enumerate(topology.AGENTS)}
    lines = []
    for agent in sorted(seconds, key=lambda name: (drawn.get(name, len(drawn)), name)):
        ordered = sorted(seconds[agent])
        lines.append(
            AgentTime(
                agent=agent,
                median=_quantile(ordered, 0.5),
                p95=_quantile(ordered, 0.95),
                total=math.fsum(ordered),
                retried=retried[agent],
            )
        )
    return lines


def model_costs(reports: Iterable[PhotoReport]) -> list[ModelCost]:
    """Return one line per model and currency, the most used first."""
    groups: dict[tuple[str, str], list[PhotoReport]] = defaultdict(list)
    for report in reports:
        groups[report.analysis.model, report.currency].append(report)
    lines = []
    for (model, currency), group in groups.items():
        paid = [report for report in group if not report.analysis.cached]
        costs = [report.cost for report in group if report.cost is not None]
        lines.append(
            ModelCost(
                model=model,
                currency=currency,
                photos=len(group),
                cached=len(group) - len(paid),
                prompt_tokens=sum(report.analysis.prompt_tokens for report in paid),
                completion_tokens=sum(report.analysis.completion_tokens for report in paid),
                cost=math.fsum(costs) if costs else None,
            )
        )
    return sorted(lines, key=lambda line: (-line.photos, line.model))


def is_local(report: PhotoReport) -> bool:
    """Return whether the local analyzer described the photo."""
    return report.analysis.model == LOCAL_MODEL


def is_undescribed(report: PhotoReport) -> bool:
    """Return whether a vision service was asked and no column got a value from its answer.

    Then the answer could not be read, or the model was sure of nothing. A hint about people does not count:
    it comes from the search for faces on our side.
    """
    asked = [
        field
        for field in report.fields
        if field.source == "vision"
        and topic_of(Column(name=field.column, display_name=field.display_name, kind=field.kind)) != "people"
    ]
    unsure = any(need.code == needs.UNSURE for need in report.needs_person)
    was_asked = bool(asked) or unsure or report.analysis.prompt_tokens > 0
    return was_asked and not is_local(report) and not any(field.confidence for field in asked)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank quantile: a duration that really occurred."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]

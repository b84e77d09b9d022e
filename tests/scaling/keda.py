"""What KEDA asks Redis, and what the autoscaler of Kubernetes makes of it, after their documentation.

* KEDA's Redis Streams scaler (https://keda.sh/docs/latest/scalers/redis-streams/, and its source
  pkg/scalers/redis_streams_scaler.go): without a consumer group it sends XLEN; with one it sends XINFO GROUPS
  and takes `lag`, where go-redis returns -1 for NULL, or XPENDING.
* Scaling modifiers (https://keda.sh/docs/latest/reference/scaledobject-spec/#scalingmodifiers): one metric,
  computed by the formula, in place of those of the triggers.
* The autoscaler (https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details):
  ceil(value / target) for an AverageValue, the largest over all metrics, no change within 10 %.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from events.connection import call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from tests.project.manifests import Manifest

SYNC_SECONDS: Final = 15.0
"""Between two looks of the autoscaler (--horizontal-pod-autoscaler-sync-period)."""
TOLERANCE: Final = 0.1
"""Of its ratio to the target within which it changes nothing (--horizontal-pod-autoscaler-tolerance)."""


class Metric(msgspec.Struct, frozen=True):
    """What the autoscaler sees: a number for the whole deployment, and how much of it one pod may have."""

    value: float
    target: float


async def ask(redis: Redis, trigger: Manifest) -> float:
    """Send what KEDA sends for one trigger."""
    assert trigger["type"] == "redis-streams"
    metadata = trigger["metadata"]
    stream, group = metadata["stream"], metadata.get("consumerGroup")
    if group is None:
        return float(await call(redis, "XLEN", stream))
    if "lagCount" not in metadata:
        return float((await call(redis, "XPENDING", stream, group))[0])
    (found,) = [one for one in await redis.xinfo_groups(stream) if one["name"].decode() == group]
    return -1.0 if found["lag"] is None else float(found["lag"])


async def metrics(redis: Redis, spec: Manifest) -> list[Metric]:
    """The metrics of a ScaledObject: one of the formula, else one of each trigger."""
    values = [await ask(redis, trigger) for trigger in spec["triggers"]]
    modifiers = spec.get("advanced", {}).get("scalingModifiers")
    if modifiers is None:
        return [Metric(value, _target(one)) for value, one in zip(values, spec["triggers"], strict=True)]
    by_name = {trigger["name"]: value for trigger, value in zip(spec["triggers"], values, strict=True)}
    names = [name.strip() for name in modifiers["formula"].split("+")]
    assert all(name.isidentifier() for name in names)
    return [Metric(sum(by_name[name] for name in names), float(modifiers["target"]))]


def _target(trigger: Manifest) -> float:
    metadata = trigger["metadata"]
    return float(metadata.get("lagCount") or metadata.get("pendingEntriesCount") or metadata["streamLength"])


class Autoscaler:
    """A HorizontalPodAutoscaler with the bounds and the behaviour that KEDA passes on from a ScaledObject."""

    def __init__(self, spec: Manifest) -> None:
        self.least: int = spec["minReplicaCount"]
        self.most: int = spec["maxReplicaCount"]
        behavior: dict[str, Any] = (
            spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior", {})
        )
        down = behavior.get("scaleDown", {})
        # the defaults of autoscaling/v2
        self._window: float = down.get("stabilizationWindowSeconds", 300)
        default = [{"type": "Percent", "value": 100, "periodSeconds": 15}]
        (self._policy,) = down.get("policies", default)
        assert self._policy["type"] == "Percent"
        assert "scaleUp" not in behavior
        self.now = 0.0
        self._wanted: list[tuple[float, int]] = []
        self._removed: list[tuple[float, int]] = []

    def sync(self, pods: int, seen: Sequence[Metric]) -> int:
        """Look once; return how many pods there shall be."""
        self.now += SYNC_SECONDS
        wanted = max(min(max(self._by(pods, metric) for metric in seen), self.most), self.least)
        self._wanted.append((self.now, wanted))
        if wanted >= pods:
            # at once, but at most 4 pods or as many as there are in 15 s (its default policies)
            return min(wanted, max(2 * pods, pods + 4))
        stable = max(number for at, number in self._wanted if self.now - at <= self._window)
        stable = min(stable, pods)
        period = self._policy["periodSeconds"]
        before = pods + sum(number for at, number in self._removed if self.now - at < period)
        floor = int(before * (1 - self._policy["value"] / 100))
        chosen = max(stable, min(floor, pods), self.least)
        if chosen < pods:
            self._removed.append((self.now, pods - chosen))
        return chosen

    @staticmethod
    def _by(pods: int, metric: Metric) -> int:
        if abs(metric.value / (metric.target * pods) - 1) <= TOLERANCE:
            return pods
        return math.ceil(metric.value / metric.target)
